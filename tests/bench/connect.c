/* The load generator's connections: over TCP or a Unix-domain socket, plain or with TLS. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ALL_WINDOWS (16 * 1024 * 1024) /* what all connections together may have in flight */

/* ---- bytes ---- */

/* What OpenSSL says in the words of read(2) and write(2). */
static ssize_t as_errno(struct connection *one, int result)
{
    if (result > 0)
        return result;
    int error = SSL_get_error(one->tls, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    ERR_clear_error();
    return -1;
}

ssize_t put(struct connection *one, const struct iovec *piece, int count)
{
    if (one->tls == NULL)
        return writev(one->fd, piece, count);
    return as_errno(one, SSL_write(one->tls, piece->iov_base, (int)piece->iov_len));
}

ssize_t take(struct connection *one, char *to, size_t room)
{
    if (one->tls == NULL)
        return recv(one->fd, to, room, 0);
    return as_errno(one, SSL_read(one->tls, to, (int)room));
}

/* ---- connecting: blocking, and none of it is measured ---- */

static int connect_inet(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        give_up("connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

static int connect_path(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", options.path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        give_up("connect: %s: %s", options.path, strerror(errno));
    return fd;
}

/* TLS 1.3; the server's certificate is of this benchmark, and not looked at. */
static SSL *shake_hands(int fd)
{
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        if (context == NULL || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION))
            give_up("no TLS 1.3");
        /* A write that is tried again may begin with more bytes behind it. */
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context, 1);
    }
    SSL *tls = SSL_new(context);
    if (tls == NULL || !SSL_set_fd(tls, fd) || SSL_connect(tls) != 1)
        give_up("TLS: %s", ERR_reason_error_string(ERR_get_error()));
    return tls;
}

static void say(struct connection *one, const char *words)
{
    struct iovec piece = {(void *)(uintptr_t)words, strlen(words)};
    if (put(one, &piece, 1) != (ssize_t)piece.iov_len)
        give_up("send: %s", strerror(errno));
}

static void hear(struct connection *one, bool (*complete)(const char *received))
{
    char answer[4096];
    size_t length = 0;
    do {
        ssize_t count = take(one, answer + length, sizeof answer - 1 - length);
        if (count <= 0)
            give_up("no welcome");
        length += (size_t)count;
        answer[length] = '\0';
        check_deadline();
    } while (!complete(answer));
}

static bool is_new(const char *received)
{
    return strcmp(received, "SESS 0\n") == 0;
}

static void open_connection(struct connection *one, size_t number)
{
    char opening[64];
    one->fd = options.path != NULL ? connect_path() : connect_inet();
    if (options.tls)
        one->tls = shake_hands(one->fd);
    if (options.wire->greeting != NULL) {
        say(one, options.wire->greeting);
        hear(one, options.wire->welcomed);
    }
    if (options.session) {
        snprintf(opening, sizeof opening, "SESS bench-%zu\n", number);
        say(one, opening);
        hear(one, is_new);
    }
}

/* What one connection may have in flight: its window, less where they are very many. */
static size_t window_of(bool waiter, size_t quota)
{
    size_t bytes = options.window_bytes, share = ALL_WINDOWS / options.connections;
    size_t message = pattern.request_end[pattern.messages - 1] / pattern.messages;
    if (waiter)
        return 1;
    if (!options.wire->echoes && options.wire->judge == NULL)
        return quota;
    if (options.wire->last != NULL)
        return quota;
    size_t window = (bytes < share ? bytes : share) / message;
    window = window < options.window ? window : options.window;
    return window > 0 ? window : 1;
}

void open_all(void)
{
    size_t pushers = options.connections - options.waiters;
    connections = calloc(options.connections, sizeof *connections);
    if (connections == NULL)
        give_up("out of memory");
    for (size_t i = 0; i < options.connections; i++) {
        struct connection *one = &connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        open_connection(one, i);
        one->waiter = i >= pushers;
        one->quota = one->waiter ? options.waiter_messages
                                 : options.messages / pushers + (i < options.messages % pushers);
        one->window = window_of(one->waiter, one->quota);
        fcntl(one->fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &event) < 0)
            give_up("epoll_ctl: %s", strerror(errno));
    }
}

