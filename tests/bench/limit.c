/*
 * The practical limit: a server that only receives, writes to a file (and syncs it), and sends
 * the same bytes back. No framing, no checks, no time stamps: no archive could do less.
 *
 *     limit FILE [sync]        prints its port, serves until SIGTERM
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_UNSYNCED (256 * 1024)
#define READ_SYNCED (1024 * 1024)
#define BATCH (16 * 1024 * 1024) /* the most that one turn takes in */
#define EVENTS 1024

struct client {
    int fd;
    char *pending; /* what the socket did not take; while there is any, nothing is read */
    size_t pending_length;
};

struct echo {
    struct client *client;
    char *data;
    size_t length;
};

static int poller, listener, archive;
static char batch[BATCH];
static struct echo echoes[EVENTS];

static void give_up(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, operation, client == NULL ? listener : client->fd, &event) < 0)
        give_up("epoll_ctl");
}

static void welcome(void)
{
    int yes = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *client;
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    client = calloc(1, sizeof *client);
    if (client == NULL)
        give_up("calloc");
    client->fd = fd;
    watch(client, EPOLL_CTL_ADD, EPOLLIN);
}

static void dismiss(struct client *client)
{
    close(client->fd);
    free(client->pending);
    free(client);
}

static void write_all(const char *data, size_t length)
{
    while (length > 0) {
        ssize_t count = write(archive, data, length);
        if (count < 0)
            give_up("write");
        data += count;
        length -= (size_t)count;
    }
}

static void keep_pending(struct client *client, const char *data, size_t length)
{
    char *kept = malloc(length);
    if (kept == NULL)
        give_up("malloc");
    memcpy(kept, data, length);
    free(client->pending);
    client->pending = kept;
    client->pending_length = length;
    watch(client, EPOLL_CTL_MOD, EPOLLOUT);
}

static void answer(struct client *client, const char *data, size_t length)
{
    ssize_t count = send(client->fd, data, length, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN)
        return; /* the next recv sees the same and dismisses the client */
    if (count < 0)
        count = 0;
    if ((size_t)count < length)
        keep_pending(client, data + count, length - (size_t)count);
}

static void go_on(struct client *client)
{
    ssize_t count = send(client->fd, client->pending, client->pending_length, MSG_NOSIGNAL);
    if (count < 0) {
        dismiss(client);
        return;
    }
    client->pending_length -= (size_t)count;
    memmove(client->pending, client->pending + count, client->pending_length);
    if (client->pending_length == 0)
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
}

/* Not synced: while the bytes are in the cache. */
static void serve(struct client *client)
{
    ssize_t count = recv(client->fd, batch, READ_UNSYNCED, 0);
    if (count <= 0) {
        dismiss(client);
        return;
    }
    write_all(batch, (size_t)count);
    answer(client, batch, (size_t)count);
}

/* Synced: one write and one sync for all that is ready, then all echoes. */
static void gather(struct client *client, struct echo *echo, size_t *used)
{
    size_t room = BATCH - *used < READ_SYNCED ? BATCH - *used : READ_SYNCED;
    *echo = (struct echo){.client = client, .data = batch + *used};
    if (room == 0)
        return;
    ssize_t count = recv(client->fd, echo->data, room, 0);
    if (count <= 0) {
        dismiss(client);
        return;
    }
    echo->length = (size_t)count;
    *used += echo->length;
}

static void commit(size_t echo_count, size_t used)
{
    if (used == 0)
        return;
    write_all(batch, used);
    if (fdatasync(archive) < 0)
        give_up("fdatasync");
    for (size_t i = 0; i < echo_count; i++)
        if (echoes[i].length > 0)
            answer(echoes[i].client, echoes[i].data, echoes[i].length);
}

static void turn(bool sync)
{
    struct epoll_event events[EVENTS];
    size_t echo_count = 0, used = 0;
    int count = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;
        if (client == NULL)
            welcome();
        else if (client->pending_length > 0)
            go_on(client);
        else if (sync)
            gather(client, &echoes[echo_count++], &used);
        else
            serve(client);
    }
    commit(echo_count, used);
}

static int open_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        give_up("listen");
    return ntohs(address.sin_port);
}

int main(int argc, char **argv)
{
    bool sync = argc == 3 && strcmp(argv[2], "sync") == 0;
    if (argc < 2) {
        fputs("usage: limit FILE [sync]\n", stderr);
        return 2;
    }
    archive = open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (archive < 0 || poller < 0)
        give_up(argv[1]);
    printf("listening on 127.0.0.1:%d\n", open_port());
    fflush(stdout);
    watch(NULL, EPOLL_CTL_ADD, EPOLLIN);
    for (;;)
        turn(sync);
}
