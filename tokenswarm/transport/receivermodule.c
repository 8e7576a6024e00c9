/* The receive thread as a Python class; everything here runs under the GIL. What the methods do: _receiver.pyi. */
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>

#include "receiver.h"

typedef struct {
    PyObject_HEAD
    Receiver *receiver; /* NULL: stopped */
    bool draining;
} ReceiveThread;

/* NULL with an exception set where it was stopped, or belongs to the process that this one was forked from. */
static Receiver *running(ReceiveThread *self)
{
    if (self->receiver != NULL && receiver_is_ours(self->receiver))
        return self->receiver;
    PyErr_SetString(PyExc_RuntimeError, "the receive thread does not run in this process");
    return NULL;
}

static PyObject *thread_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"records", "buffer", "late_ns", NULL};
    Py_ssize_t records, bytes;
    long long late_ns;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "nnL", names, &records, &bytes, &late_ns))
        return NULL;
    if (records < 1 || records > 1 << 24 || bytes < 1 || bytes > 1 << 30) {
        PyErr_SetString(PyExc_ValueError, "records: 1 to 2**24; buffer: 1 to 2**30 bytes");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    ReceiveThread *self = (ReceiveThread *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->receiver = receiver_start((size_t)records, (size_t)bytes, late_ns);
    if (self->receiver == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void stop(ReceiveThread *self)
{
    Receiver *receiver = self->receiver;
    self->receiver = NULL;
    if (receiver == NULL)
        return;
    Py_BEGIN_ALLOW_THREADS
    receiver_stop(receiver);
    Py_END_ALLOW_THREADS
}

static PyObject *thread_stop(ReceiveThread *self, PyObject *Py_UNUSED(ignored))
{
    if (self->draining) { /* called by the garbage collector's finalizers in the middle of `drain` */
        PyErr_SetString(PyExc_RuntimeError, "cannot stop while draining");
        return NULL;
    }
    stop(self);
    Py_RETURN_NONE;
}

static void thread_dealloc(ReceiveThread *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    stop(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *thread_add(ReceiveThread *self, PyObject *argument)
{
    Receiver *receiver = running(self);
    long fd = PyLong_AsLong(argument);
    if (receiver == NULL || (fd == -1 && PyErr_Occurred()))
        return NULL;
    uint64_t id;
    errno = receiver_add(receiver, (int)fd, &id);
    return errno ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromUnsignedLongLong(id);
}

static PyObject *thread_remove(ReceiveThread *self, PyObject *argument)
{
    uint64_t id = PyLong_AsUnsignedLongLong(argument);
    if (id == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    if (self->receiver != NULL && receiver_is_ours(self->receiver))
        receiver_remove(self->receiver, id);
    Py_RETURN_NONE;
}

static PyObject *thread_read(ReceiveThread *self, PyObject *argument)
{
    uint64_t id = PyLong_AsUnsignedLongLong(argument);
    Receiver *receiver = running(self);
    if (receiver == NULL || (id == (uint64_t)-1 && PyErr_Occurred()))
        return NULL;
    receiver_read(receiver, id);
    Py_RETURN_NONE;
}

static PyObject *payload(Ring *ring, const Record *record)
{
    if (record->size > 0)
        return PyBytes_FromStringAndSize(ring_bytes(ring, record), record->size);
    if (record->size < 0)
        return PyLong_FromLong(-record->size);
    return Py_NewRef(Py_None);
}

/* (id, at, low, bytes | errno | None, clock); NULL with an exception set. */
static PyObject *as_tuple(Ring *ring, const Record *record)
{
    PyObject *items[] = {
        PyLong_FromUnsignedLongLong(record->id),
        PyLong_FromLongLong(record->at),
        PyLong_FromLongLong(record->low),
        payload(ring, record),
        PyLong_FromLong(record->clock),
    };
    enum { COUNT = sizeof items / sizeof *items };
    PyObject *tuple = PyTuple_New(COUNT);
    bool whole = tuple != NULL;
    for (Py_ssize_t i = 0; i < COUNT; i++) {
        whole = whole && items[i] != NULL;
        if (tuple != NULL)
            PyTuple_SetItem(tuple, i, items[i]);
        else
            Py_XDECREF(items[i]);
    }
    if (!whole)
        Py_CLEAR(tuple);
    return tuple;
}

/* Appends up to `most` records; returns how many. Fewer than there are, with an exception set: no memory. */
static uint64_t append_records(Ring *ring, PyObject *list, Py_ssize_t most)
{
    uint64_t count = 0;
    const Record *record;
    while ((Py_ssize_t)count < most && (record = ring_peek(ring, count)) != NULL) {
        PyObject *tuple = as_tuple(ring, record);
        int failed = tuple == NULL || PyList_Append(list, tuple);
        Py_XDECREF(tuple);
        if (failed)
            break;
        count++;
    }
    return count;
}

/* The records go into the caller's deque in this one call, so that a Python signal handler cannot come in between. */
static PyObject *thread_drain(ReceiveThread *self, PyObject *arguments)
{
    Receiver *receiver = running(self);
    Py_ssize_t most;
    PyObject *into;
    if (receiver == NULL || !PyArg_ParseTuple(arguments, "nO", &most, &into))
        return NULL;
    if (self->draining)
        Py_RETURN_NONE;
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    Ring *ring = receiver_ring(receiver);
    self->draining = true; /* making objects may start the garbage collector, whose finalizers may come here */
    uint64_t count = append_records(ring, list, most);
    if (count)
        PyErr_Clear(); /* what did not fit into memory stays in the ring */
    PyObject *done = PyErr_Occurred() ? NULL : PyObject_CallMethod(into, "extend", "O", list);
    self->draining = false;
    Py_DECREF(list);
    if (done != NULL && count)
        ring_consume(ring, count);
    receiver_drained(receiver);
    return done;
}

static PyObject *thread_wake(ReceiveThread *self, PyObject *Py_UNUSED(ignored))
{
    Receiver *receiver = running(self);
    if (receiver == NULL)
        return NULL;
    receiver_ring_bell(receiver);
    Py_RETURN_NONE;
}

static PyObject *thread_fileno(ReceiveThread *self, PyObject *Py_UNUSED(ignored))
{
    Receiver *receiver = running(self);
    return receiver == NULL ? NULL : PyLong_FromLong(receiver_fileno(receiver));
}

static PyObject *thread_full(ReceiveThread *self, PyObject *Py_UNUSED(ignored))
{
    Receiver *receiver = running(self);
    if (receiver == NULL)
        return NULL;
    uint64_t count;
    int64_t ns;
    receiver_full(receiver, &count, &ns);
    return Py_BuildValue("KL", (unsigned long long)count, (long long)ns);
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)thread_add, METH_O, NULL},
    {"remove", (PyCFunction)thread_remove, METH_O, NULL},
    {"read", (PyCFunction)thread_read, METH_O, NULL},
    {"drain", (PyCFunction)thread_drain, METH_VARARGS, NULL},
    {"wake", (PyCFunction)thread_wake, METH_NOARGS, NULL},
    {"fileno", (PyCFunction)thread_fileno, METH_NOARGS, NULL},
    {"full", (PyCFunction)thread_full, METH_NOARGS, NULL},
    {"stop", (PyCFunction)thread_stop, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, thread_new},
    {Py_tp_dealloc, thread_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {"tokenswarm.transport._receiver.ReceiveThread", sizeof(ReceiveThread), 0,
                           Py_TPFLAGS_DEFAULT, slots};

static int add_type(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, add_type}, {0, NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_receiver", NULL, 0, NULL, module_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__receiver(void)
{
    return PyModuleDef_Init(&module);
}
