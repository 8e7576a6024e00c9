/* One end of a connection, plain or, if compiled with -DWITH_TLS and linked with OpenSSL, over TLS. Nothing blocks. */
#ifndef TOKENSWARM_LINK_H
#define TOKENSWARM_LINK_H

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#endif

typedef struct {
    int fd; /* -1: closed */
#ifdef WITH_TLS
    SSL *tls; /* NULL: plain */
#endif
} Link;

#ifdef WITH_TLS
static SSL_CTX *link_context;
#endif

/* From now on links speak TLS, with the key and the certificate in this file. False: they cannot. */
static inline bool link_use_tls(const char *pem)
{
#ifdef WITH_TLS
    link_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(link_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return SSL_CTX_use_certificate_chain_file(link_context, pem) == 1 &&
           SSL_CTX_use_PrivateKey_file(link_context, pem, SSL_FILETYPE_PEM) == 1;
#else
    (void)pem;
    return false;
#endif
}

static inline Link link_open(int fd)
{
    Link link = {.fd = fd};
#ifdef WITH_TLS
    if (link_context != NULL) {
        link.tls = SSL_new(link_context);
        SSL_set_fd(link.tls, fd);
        SSL_set_accept_state(link.tls);
    }
#endif
    return link;
}

static inline void link_close(Link *link)
{
#ifdef WITH_TLS
    SSL_free(link->tls);
#endif
    close(link->fd);
    link->fd = -1;
}

/* How many bytes; 0: it would block; -1: it has ended. */
static inline ssize_t link_outcome(Link *link, ssize_t size)
{
    if (size > 0)
        return size;
#ifdef WITH_TLS
    if (link->tls != NULL) {
        int why = SSL_get_error(link->tls, (int)size);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
#endif
    (void)link;
    return size < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static inline ssize_t link_read(Link *link, char *data, size_t size)
{
#ifdef WITH_TLS
    if (link->tls != NULL)
        return link_outcome(link, SSL_read(link->tls, data, (int)size));
#endif
    return link_outcome(link, recv(link->fd, data, size, 0));
}

static inline ssize_t link_write(Link *link, const char *data, size_t size)
{
#ifdef WITH_TLS
    if (link->tls != NULL)
        return link_outcome(link, SSL_write(link->tls, data, (int)size));
#endif
    return link_outcome(link, send(link->fd, data, size, 0));
}
#endif
