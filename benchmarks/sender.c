/* A server that answers chat completions with a steady stream of chunks, from one core, and writes down what it sent
 * when: a stand-in for a model server at rates past the simulator's. servers.py compiles and runs it.
 *
 *     sender LOG CHUNKS RATE GROUPS SECONDS [PEM]
 *
 * Each reply has CHUNKS chunks, RATE a second. The sender thinks in steps, as continuous batching does: a stream
 * belongs to one of GROUPS, a group sends one chunk to each of its streams in one burst, and the groups take turns,
 * evenly spread over the interval. What goes out is what vLLM sends (its events, one write each), whatever the request
 * asks for. LOG is as tokenswarm/simulator/sendlog.py has it; with PEM, a file with key and certificate, it speaks TLS.
 *
 * It listens on 127.0.0.1 only and ends by itself: with its standard input, or after SECONDS. Standard output:
 * one line with its URL, and at the end one with the number of steps that it was over 1 ms late with. It trusts its
 * client: what is not a request of tokenswarm's is answered by closing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "link.h"

enum { MAX_EVENTS = 256, MOST_DESCRIPTORS = 65536, REQUEST_BYTES = 65536, UNSENT_BYTES = 4096, ID_BYTES = 65 };
static const int64_t SECOND_NS = 1000000000, LATE_NS = 1000000;

typedef struct Stream {
    Link link;
    int group;
    bool busy; /* answering a request */
    struct Stream *next; /* in its group, while busy */
    char id[ID_BYTES];
    int64_t received;
    int events; /* output events so far; of each: */
    int64_t *sent, *done; /* just before and just after its write */
    bool *held; /* the socket did not take all of it then */
    size_t request_size, unsent_size;
    char request[REQUEST_BYTES], unsent[UNSENT_BYTES];
} Stream;

static int chunks, rate, group_count, seconds; /* as the command line has them */
static int late_steps;
static Stream *streams[MOST_DESCRIPTORS]; /* by descriptor */
static Stream **groups;
static FILE *send_log;
static int poller;

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

/* Life of a connection */

/* Whoever holds the stream then frees it: its group's next step if it was busy, else `hear`. */
static void leave(Stream *stream)
{
    if (stream->link.fd < 0)
        return;
    streams[stream->link.fd] = NULL;
    link_close(&stream->link);
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
    size_t notes = (size_t)chunks * (2 * sizeof(int64_t) + sizeof(bool));
    Stream *stream = fd < MOST_DESCRIPTORS ? malloc(sizeof *stream + notes) : NULL;
    if (stream == NULL) {
        close(fd);
        return;
    }
    memset(stream, 0, offsetof(Stream, request));
    stream->link = link_open(fd);
    stream->group = arrived++ % group_count;
    stream->sent = (int64_t *)(stream + 1);
    stream->done = stream->sent + chunks;
    stream->held = (bool *)(stream->done + chunks);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    streams[fd] = stream;
    watch(fd);
}

/* Sending. What the socket does not take waits in `unsent`, and no further event is made before it is gone. */

static void put(Stream *stream, const char *data, size_t size)
{
    size_t sent = 0;
    while (stream->unsent_size == 0 && sent < size) {
        ssize_t more = link_write(&stream->link, data + sent, size - sent);
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
        ssize_t more = link_write(&stream->link, stream->unsent, stream->unsent_size);
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
    if (stream->link.fd >= 0)
        put(stream, chunk, (size_t)snprintf(chunk, sizeof chunk, "%x\r\ndata: %s\n\n\r\n", size + 8, data));
}

#define HEAD "{\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion.chunk\",\"created\":1770000000,\"model\":\"sender\","

static void put_token(Stream *stream)
{
    static const char *const words[] = {" the", " model", " answers", ",", " token", " by", " 令牌", " quickly"};
    int i = stream->events;
    bool last = i + 1 == chunks;
    if (i == 0)
        put_event(stream, HEAD "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                               "\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":null}", stream->id);
    stream->sent[i] = now_ns();
    put_event(stream, HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,"
                           "\"finish_reason\":%s,\"token_ids\":null}]}",
              stream->id, words[i % 8], last ? "\"length\",\"stop_reason\":null" : "null");
    stream->done[i] = now_ns();
    stream->held[i] = stream->unsent_size > 0;
    stream->events++;
}

static void put_end(Stream *stream)
{
    put_event(stream, HEAD "\"choices\":[],\"usage\":{\"prompt_tokens\":16,\"total_tokens\":%d,"
                           "\"completion_tokens\":%d}}", stream->id, chunks + 16, chunks);
    put_event(stream, "[DONE]");
    if (stream->link.fd >= 0)
        put(stream, "0\r\n\r\n", 5);
}

static void write_times(const char *name, const int64_t *times, int count)
{
    fprintf(send_log, ",\"%s\":[", name);
    for (int i = 0; i < count; i++)
        fprintf(send_log, "%s%lld", i ? "," : "", (long long)times[i]);
    fputs("]", send_log);
}

/* As tokenswarm/simulator/sendlog.py has it. */
static void write_record(Stream *stream)
{
    fprintf(send_log, "{\"id\":\"%s\",\"received_ns\":%lld,\"stream\":true,\"outcome\":\"%s\",\"output_tokens\":%d",
            stream->id, (long long)stream->received, stream->events < chunks ? "cancelled" : "ok", stream->events);
    write_times("sent_ns", stream->sent, stream->events);
    write_times("done_ns", stream->done, stream->events);
    fputs(",\"inexact\":[", send_log);
    const char *comma = "";
    for (int i = 0; i < stream->events; i++)
        if (stream->held[i]) {
            fprintf(send_log, "%s%d", comma, i);
            comma = ",";
        }
    fputs("]}\n", send_log);
}

/* Whether the stream goes on. */
static bool step_stream(Stream *stream)
{
    if (stream->link.fd >= 0 && put_unsent(stream) && stream->events < chunks) {
        put_token(stream);
        if (stream->link.fd >= 0 && stream->events == chunks)
            put_end(stream);
    }
    bool ended = stream->link.fd < 0 || (stream->events == chunks && stream->unsent_size == 0);
    if (!ended)
        return true;
    write_record(stream);
    stream->busy = false;
    if (stream->link.fd < 0)
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
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\n"
                               "content-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    stream->received = now_ns();
    stream->events = 0;
    stream->busy = true;
    stream->next = groups[stream->group];
    groups[stream->group] = stream;
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
    size_t *used = &stream->request_size;
    ssize_t size;
    while ((size = link_read(&stream->link, request + *used, REQUEST_BYTES - 1 - *used)) > 0) {
        *used += (size_t)size;
        request[*used] = '\0';
        const char *end = strstr(request, "\r\n\r\n");
        if (end == NULL)
            continue;
        header(request, "\r\ncontent-length: ", length, sizeof length);
        if (*used < (size_t)(end + 4 - request) + strtoul(length, NULL, 10))
            continue;
        *used = 0;
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
    if (stream->link.fd < 0 && !stream->busy)
        free(stream);
}

/* The loop */

static int listen_on_loopback(const char *scheme)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    printf("{\"url\":\"%s://127.0.0.1:%d\"}\n", scheme, ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void serve(int listener)
{
    struct epoll_event events[MAX_EVENTS];
    const int64_t interval = SECOND_NS / rate, step = interval / group_count;
    const int64_t over = now_ns() + seconds * SECOND_NS;
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
        for (; due <= now; due += step, group = (group + 1) % group_count) {
            late_steps += groups[group] != NULL && now_ns() - due > LATE_NS;
            step_group(group);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 6 || (chunks = atoi(argv[2])) < 1 || (rate = atoi(argv[3])) < 1 || (group_count = atoi(argv[4])) < 1 ||
        (seconds = atoi(argv[5])) < 1) {
        fputs("sender LOG CHUNKS RATE GROUPS SECONDS [PEM]\n", stderr);
        return 2;
    }
    if (argc > 6 && !link_use_tls(argv[6])) {
        fprintf(stderr, "sender: no TLS with %s\n", argv[6]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    send_log = fopen(argv[1], "w");
    groups = calloc((size_t)group_count, sizeof *groups);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (send_log == NULL || groups == NULL || poller < 0)
        die("sender");
    int listener = listen_on_loopback(argc > 6 ? "https" : "http");
    watch(listener);
    watch(STDIN_FILENO);
    serve(listener);
    for (int fd = 0; fd < MOST_DESCRIPTORS; fd++)
        if (streams[fd] != NULL && streams[fd]->busy)
            write_record(streams[fd]);
    fclose(send_log);
    printf("{\"late_steps\":%d}\n", late_steps);
    return 0;
}
