/* What the parts of the load generator share: load.c runs it, traffic.c sends and compares, connect.c connects. */
#ifndef LOAD_H
#define LOAD_H

#include "wire.h"

#include <openssl/ssl.h>
#include <stdint.h>
#include <sys/uio.h>

#define BUFFER (256 * 1024)
#define LONGEST_LINE 512 /* of a reply that is read line by line */
#define PIECES 8

struct options {
    const struct wire *wire;
    enum kind kind;
    int port;
    size_t connections, messages, size, window, window_bytes, waiters, waiter_messages;
    bool hold, tls, session;
    double timeout;
    const char *count_file, *path;
};

struct connection {
    int fd;
    SSL *tls;                  /* NULL: a plain connection */
    bool waiter, blocked;      /* blocked: the socket takes no more, EPOLLOUT is asked for */
    size_t quota, window;      /* messages */
    size_t allowed, confirmed; /* messages handed to the socket or waiting for it; answered */
    uint64_t sent, received;   /* bytes */
    size_t mark;               /* the message whose wait is being measured; 0: none */
    double marked_at;
    char line[LONGEST_LINE];   /* the unfinished line of a reply */
    size_t line_length;
};

extern struct options options;
extern struct pattern pattern;
extern struct connection *connections;
extern int poller;
extern char buffer[BUFFER];

__attribute__((noreturn, format(printf, 1, 2))) void give_up(const char *format, ...);
double now(void);
void check_deadline(void);
void add_sample(double seconds);

uint64_t end_of(const size_t *ends, size_t count);
int pieces(struct connection *one, uint64_t target, struct iovec *piece, int most);
void send_more(struct connection *one);
void receive(struct connection *one);

void open_all(void);
/* As writev and recv: -1 with EAGAIN when there is no more for now. */
ssize_t put(struct connection *one, const struct iovec *piece, int count);
ssize_t take(struct connection *one, char *to, size_t room);

#endif
