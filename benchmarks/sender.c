/* A server that answers chat completions with a steady stream of chunks, from one core, and writes down what it sent
 * when: a stand-in for a model server at rates past the simulator's. sender.py compiles and runs it.
 *
 *     sender --log FILE [--chunks 128] [--rate 50] [--groups 1000] [--seconds 600] [--cert FILE --key FILE]
 *
 * It thinks in steps, as continuous batching does: a stream belongs to one of `groups`, each group sends a chunk on each
 * of its steps, and the groups' steps are spread evenly over the interval. One group: all streams in one burst. What
 * goes out is what vLLM sends (events, their size, one write an event), whatever the request asks for.
 *
 * It listens on 127.0.0.1 only and ends by itself: with its standard input, or after so many seconds. Standard output:
 * one line with its URL, and one with counts at the end. It trusts its client: what is not a request of tokenswarm's is
 * answered by closing. Compiled with -DWITH_TLS and linked with OpenSSL it speaks TLS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

enum { MAX_EVENTS = 256, MOST_DESCRIPTORS = 65536, REQUEST_BYTES = 65536, UNSENT_BYTES = 4096, ID_BYTES = 65 };
static const int64_t SECOND_NS = 1000000000, LATE_NS = 1000000;

typedef struct Stream {
    int fd; /* -1: it has ended */
    int group;
    bool busy; /* answering a request */
    struct Stream *next; /* in its group, while busy */
    char id[ID_BYTES];
    int64_t received;
    int events, held_at; /* output events so far; the one whose send had to be finished later, or -1 */
    int64_t *sent, *done; /* of each output event: just before and just after its write */
    size_t request_size, unsent_size;
    char request[REQUEST_BYTES], unsent[UNSENT_BYTES];
#ifdef WITH_TLS
    SSL *tls;
#endif
} Stream;

static struct {
    int chunks, rate, groups, seconds;
    const char *log, *cert, *key;
} options = {.chunks = 128, .rate = 50, .groups = 1000, .seconds = 600};
static struct {
    unsigned long long requests, chunks, steps, late_steps, held;
} counts;
static Stream *streams[MOST_DESCRIPTORS]; /* by descriptor */
static Stream **groups;
static FILE *send_log;
static int poller;
#ifdef WITH_TLS
static SSL_CTX *tls_context;
#endif

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND_NS + time.tv_nsec;
}

/* Bytes over the connection: how many, 0 if it would block, -1 if it has ended */

static ssize_t outcome(ssize_t size)
{
    if (size > 0)
        return size;
    return size < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

#ifdef WITH_TLS
static ssize_t tls_outcome(Stream *stream, int size)
{
    if (size > 0)
        return size;
    int why = SSL_get_error(stream->tls, size);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}
#endif

static ssize_t take(Stream *stream, char *data, size_t size)
{
#ifdef WITH_TLS
    if (stream->tls != NULL)
        return tls_outcome(stream, SSL_read(stream->tls, data, (int)size));
#endif
    return outcome(recv(stream->fd, data, size, 0));
}

static ssize_t give(Stream *stream, const char *data, size_t size)
{
#ifdef WITH_TLS
    if (stream->tls != NULL)
        return tls_outcome(stream, SSL_write(stream->tls, data, (int)size));
#endif
    return outcome(send(stream->fd, data, size, 0));
}

/* Life of a connection */

/* Whoever holds the stream then frees it: its group's next step if it was busy, else `hear`. */
static void leave(Stream *stream)
{
    if (stream->fd < 0)
        return;
#ifdef WITH_TLS
    SSL_free(stream->tls);
#endif
    close(stream->fd);
    streams[stream->fd] = NULL;
    stream->fd = -1;
}

static void watch(int fd)
{
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void welcome(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int on = 1;
    static int arrived = 0;
    Stream *stream = fd < MOST_DESCRIPTORS ? malloc(sizeof *stream + 2 * (size_t)options.chunks * sizeof(int64_t)) : NULL;
    if (stream == NULL) {
        close(fd);
        return;
    }
    memset(stream, 0, offsetof(Stream, request));
    stream->fd = fd;
    stream->group = arrived++ % options.groups;
    stream->sent = (int64_t *)(stream + 1);
    stream->done = stream->sent + options.chunks;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef WITH_TLS
    stream->tls = NULL;
    if (tls_context != NULL) {
        stream->tls = SSL_new(tls_context);
        SSL_set_fd(stream->tls, fd);
        SSL_set_accept_state(stream->tls);
    }
#endif
    streams[fd] = stream;
    watch(fd);
}

/* Sending. What the socket does not take waits in `unsent`, and no further event is made before it is gone. */

static void put(Stream *stream, const char *data, size_t size)
{
    size_t sent = 0;
    while (stream->unsent_size == 0 && sent < size) {
        ssize_t more = give(stream, data + sent, size - sent);
        if (more < 0) {
            leave(stream);
            return;
        }
        if (more == 0)
            break;
        sent += (size_t)more;
    }
    if (size - sent > UNSENT_BYTES - stream->unsent_size) {
        leave(stream);
        return;
    }
    memcpy(stream->unsent + stream->unsent_size, data + sent, size - sent);
    stream->unsent_size += size - sent;
}

static bool put_unsent(Stream *stream)
{
    while (stream->unsent_size > 0) {
        ssize_t more = give(stream, stream->unsent, stream->unsent_size);
        if (more < 0)
            leave(stream);
        if (more <= 0)
            return false;
        stream->unsent_size -= (size_t)more;
        memmove(stream->unsent, stream->unsent + more, stream->unsent_size);
    }
    return true;
}

/* One event as one HTTP chunk in one write. */
__attribute__((format(printf, 2, 3))) static void put_event(Stream *stream, const char *format, ...)
{
    char data[1024], chunk[1100];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(data, sizeof data, format, arguments);
    va_end(arguments);
    if (stream->fd >= 0)
        put(stream, chunk, (size_t)snprintf(chunk, sizeof chunk, "%x\r\ndata: %s\n\n\r\n", size + 8, data));
}

#define HEAD "{\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion.chunk\",\"created\":1770000000,\"model\":\"sender\","

static void put_token(Stream *stream)
{
    static const char *const words[] = {" the", " model", " answers", ",", " token", " by", " 令牌", " quickly"};
    int i = stream->events;
    bool last = i + 1 == options.chunks;
    if (i == 0)
        put_event(stream, HEAD "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                               "\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null}", stream->id);
    stream->sent[i] = now_ns();
    put_event(stream, HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,"
                           "\"finish_reason\":%s,\"token_ids\":null}]}",
              stream->id, words[i % 8], last ? "\"length\",\"stop_reason\":null" : "null");
    stream->done[i] = now_ns();
    if (stream->unsent_size > 0)
        stream->held_at = i;
    stream->events++;
    counts.chunks++;
}

static void put_end(Stream *stream)
{
    put_event(stream, HEAD "\"choices\":[],\"usage\":{\"prompt_tokens\":16,\"total_tokens\":%d,"
                           "\"completion_tokens\":%d}}", stream->id, options.chunks + 16, options.chunks);
    put_event(stream, "[DONE]");
    if (stream->fd >= 0)
        put(stream, "0\r\n\r\n", 5);
}

static void write_times(const char *name, const int64_t *times, int count)
{
    fprintf(send_log, ",\"%s\":[", name);
    for (int i = 0; i < count; i++)
        fprintf(send_log, "%s%lld", i ? "," : "", (long long)times[i]);
    fputc(']', send_log);
}

/* As tokenswarm/simulator/sendlog.py has it. At most one event of a stream is held, as nothing comes after it. */
static void write_record(Stream *stream)
{
    fprintf(send_log, "{\"id\":\"%s\",\"received_ns\":%lld,\"stream\":true,\"outcome\":\"%s\",\"output_tokens\":%d",
            stream->id, (long long)stream->received, stream->events < options.chunks ? "cancelled" : "ok", stream->events);
    write_times("sent_ns", stream->sent, stream->events);
    write_times("done_ns", stream->done, stream->events);
    if (stream->held_at >= 0)
        fprintf(send_log, ",\"inexact\":[%d]", stream->held_at);
    fputs("}\n", send_log);
}

/* Whether the stream goes on. */
static bool step_stream(Stream *stream)
{
    if (stream->fd >= 0 && !put_unsent(stream))
        counts.held++;
    else if (stream->fd >= 0 && stream->events < options.chunks) {
        put_token(stream);
        if (stream->fd >= 0 && stream->events == options.chunks)
            put_end(stream);
    }
    bool ended = stream->fd < 0 || (stream->events == options.chunks && stream->unsent_size == 0);
    if (!ended)
        return true;
    write_record(stream);
    stream->busy = false;
    if (stream->fd < 0)
        free(stream);
    return false;
}

static void step_group(int group)
{
    Stream **link = &groups[group];
    while (*link != NULL) {
        Stream *stream = *link, *next = stream->next;
        if (step_stream(stream))
            link = &stream->next;
        else
            *link = next;
    }
}

/* Requests */

/* The value of a header, as far as it may stand in a JSON text as it is; empty if there is none. */
static void header(const char *head, const char *name, char *value, size_t size)
{
    static const char plain[] = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    const char *found = strcasestr(head, name), *from = found == NULL ? "" : found + strlen(name);
    snprintf(value, size, "%.*s", (int)strspn(from, plain), from);
}

static void begin(Stream *stream)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    stream->received = now_ns();
    stream->events = 0;
    stream->held_at = -1;
    stream->busy = true;
    stream->next = groups[stream->group];
    groups[stream->group] = stream;
    counts.requests++;
    put(stream, head, sizeof head - 1);
}

/* False: that is nothing it knows. */
static bool answer(Stream *stream)
{
    static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"sender\",\"object\":\"model\"}]}";
    char reply[512];
    if (strncmp(stream->request, "POST /v1/chat/completions ", 26) == 0) {
        begin(stream);
    } else if (strncmp(stream->request, "GET /v1/models ", 15) == 0) {
        int size = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                                 "content-length: %zu\r\n\r\n%s", sizeof models - 1, models);
        put(stream, reply, (size_t)size);
    } else {
        return false;
    }
    return true;
}

/* Read what is there, and answer a request that is there as a whole. False: close. */
static bool read_request(Stream *stream)
{
    char *request = stream->request, length[12];
    ssize_t size;
    while ((size = take(stream, request + stream->request_size, REQUEST_BYTES - 1 - stream->request_size)) > 0) {
        stream->request_size += (size_t)size;
        request[stream->request_size] = '\0';
        const char *end = strstr(request, "\r\n\r\n");
        if (end == NULL)
            continue;
        header(request, "\r\ncontent-length: ", length, sizeof length);
        if (stream->request_size < (size_t)(end + 4 - request) + strtoul(length, NULL, 10))
            continue;
        stream->request_size = 0;
        if (stream->busy)
            return false; /* it asks again before it was answered */
        header(request, "\r\nx-request-id: ", stream->id, sizeof stream->id);
        return answer(stream);
    }
    return size == 0;
}

static void hear(Stream *stream)
{
    if (!read_request(stream))
        leave(stream);
    if (stream->fd < 0 && !stream->busy)
        free(stream);
}

/* The loop */

static int listen_on_loopback(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    printf("{\"url\":\"%s://127.0.0.1:%d\"}\n", options.cert ? "https" : "http", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void serve(int listener)
{
    struct epoll_event events[MAX_EVENTS];
    const int64_t interval = SECOND_NS / options.rate, step = interval / options.groups;
    const int64_t over = now_ns() + options.seconds * SECOND_NS;
    int group = 0;
    for (int64_t due = now_ns(), now = due; now < over; now = now_ns()) {
        int64_t wait = due > now ? due - now : 0;
        struct timespec timeout = {wait / SECOND_NS, wait % SECOND_NS};
        int count = epoll_pwait2(poller, events, MAX_EVENTS, &timeout, NULL);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO)
                return;
            if (fd == listener)
                welcome(listener);
            else if (streams[fd] != NULL)
                hear(streams[fd]);
        }
        now = now_ns();
        if (now - due > interval)
            due = now; /* a server that stood still does not catch up */
        for (; due <= now; due += step, group = (group + 1) % options.groups) {
            counts.steps++;
            counts.late_steps += groups[group] != NULL && now_ns() - due > LATE_NS;
            step_group(group);
        }
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"chunks", required_argument, NULL, 'c'}, {"rate", required_argument, NULL, 'r'},
        {"groups", required_argument, NULL, 'g'}, {"seconds", required_argument, NULL, 's'},
        {"log", required_argument, NULL, 'l'},    {"cert", required_argument, NULL, 'e'},
        {"key", required_argument, NULL, 'k'},    {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'c': options.chunks = atoi(optarg); break;
        case 'r': options.rate = atoi(optarg); break;
        case 'g': options.groups = atoi(optarg); break;
        case 's': options.seconds = atoi(optarg); break;
        case 'l': options.log = optarg; break;
        case 'e': options.cert = optarg; break;
        case 'k': options.key = optarg; break;
        default: exit(2);
        }
    }
    if (options.log == NULL || options.chunks < 1 || options.rate < 1 || options.groups < 1 || options.seconds < 1) {
        fputs("sender: --log FILE is needed, and numbers must be positive\n", stderr);
        exit(2);
    }
}

static void prepare_tls(void)
{
    if (options.cert == NULL)
        return;
#ifdef WITH_TLS
    tls_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_use_certificate_chain_file(tls_context, options.cert) == 1 &&
        SSL_CTX_use_PrivateKey_file(tls_context, options.key, SSL_FILETYPE_PEM) == 1)
        return;
    fputs("sender: certificate or key cannot be used\n", stderr);
#else
    fputs("sender: compiled without TLS\n", stderr);
#endif
    exit(2);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare_tls();
    signal(SIGPIPE, SIG_IGN);
    send_log = fopen(options.log, "w");
    groups = calloc((size_t)options.groups, sizeof *groups);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (send_log == NULL || groups == NULL || poller < 0)
        die("sender");
    int listener = listen_on_loopback();
    watch(listener);
    watch(STDIN_FILENO);
    serve(listener);
    for (int fd = 0; fd < MOST_DESCRIPTORS; fd++)
        if (streams[fd] != NULL && streams[fd]->busy)
            write_record(streams[fd]);
    fclose(send_log);
    printf("{\"requests\":%llu,\"chunks\":%llu,\"steps\":%llu,\"late_steps\":%llu,\"held\":%llu}\n", counts.requests,
           counts.chunks, counts.steps, counts.late_steps, counts.held);
    return 0;
}
