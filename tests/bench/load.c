/*
 * The load generator: connections that push messages as an honest pipelining client does, with
 * a bounded window of unconfirmed messages each, and that check every reply. One line of JSON
 * at the end. A reply that is not what it has to be ends the run with status 1.
 */
#define _GNU_SOURCE
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PATTERN_MESSAGES 1000
#define BUFFER (256 * 1024)
#define ALL_WINDOWS (16 * 1024 * 1024) /* what all connections together may have in flight */
#define LONGEST_LINE 512               /* of a reply that is read line by line */
#define MOST_SAMPLES 4000000

struct options {
    const struct wire *wire;
    enum kind kind;
    int port;
    size_t connections, messages, size, window, window_bytes, waiters, waiter_messages;
    bool hold;
    double timeout;
    const char *count_file;
};

struct connection {
    int fd;
    bool waiter, blocked;      /* blocked: the socket takes no more, EPOLLOUT is asked for */
    size_t quota, window;      /* messages */
    size_t allowed, confirmed; /* messages handed to the socket or waiting for it; answered */
    uint64_t sent, received;   /* bytes */
    size_t mark;               /* the message whose wait is being measured; 0: none */
    double marked_at;
    char line[LONGEST_LINE];   /* the unfinished line of a reply */
    size_t line_length;
};

static struct options options = {
    .connections = 1, .messages = 100000, .size = 100, .window = 4096,
    .window_bytes = 256 * 1024, .timeout = 60,
};
static struct pattern pattern;
static struct connection *connections;
static char buffer[BUFFER];
static float *samples; /* seconds */
static size_t sample_count;
static int poller;
static double started;

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void check_deadline(void)
{
    if (now() - started > options.timeout)
        give_up("not finished after %.0f s", options.timeout);
}

/* ---- positions in the endless repetition of the pattern ---- */

static size_t pattern_length(const size_t *ends) { return ends[pattern.messages - 1]; }

/* Where message number `count` (from 1) ends in the stream of bytes. */
static uint64_t end_of(const size_t *ends, size_t count)
{
    size_t rounds = count / pattern.messages, rest = count % pattern.messages;
    return (uint64_t)rounds * pattern_length(ends) + (rest > 0 ? ends[rest - 1] : 0);
}

/* ---- sending ---- */

static void ask_for(struct connection *one, bool output)
{
    struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = one};
    if (one->blocked == output)
        return;
    one->blocked = output;
    if (epoll_ctl(poller, EPOLL_CTL_MOD, one->fd, &event) < 0)
        give_up("epoll_ctl: %s", strerror(errno));
}

/* The bytes from one->sent up to `target`, which may go round the pattern a few times. */
static int pieces(struct connection *one, uint64_t target, struct iovec *piece, int most)
{
    size_t length = pattern_length(pattern.request_end), at = one->sent % length;
    uint64_t left = target - one->sent;
    int count = 0;
    for (; count < most && left > 0; count++, at = 0) {
        size_t here = length - at < left ? length - at : (size_t)left;
        piece[count] = (struct iovec){pattern.request + at, here};
        left -= here;
    }
    return count;
}

static void allow(struct connection *one)
{
    size_t limit = one->confirmed + one->window;
    if (limit > one->quota)
        limit = one->quota;
    if (limit <= one->allowed)
        return;
    one->allowed = limit;
    if (one->mark == 0 && (one->waiter || options.waiters == 0)) {
        one->mark = limit;
        one->marked_at = now();
    }
}

static void send_more(struct connection *one)
{
    struct iovec piece[8];
    allow(one);
    uint64_t target = end_of(pattern.request_end, one->allowed);
    while (one->sent < target) {
        ssize_t count = writev(one->fd, piece, pieces(one, target, piece, 8));
        if (count < 0 && errno != EAGAIN)
            give_up("send: %s", strerror(errno));
        if (count < 0) {
            ask_for(one, true);
            return;
        }
        one->sent += (uint64_t)count;
    }
    ask_for(one, false);
}

/* ---- replies ---- */

/* Every byte of an echo has to be the byte that was due. */
static void take_echo(struct connection *one, const char *data, size_t count)
{
    size_t length = pattern_length(pattern.reply_end);
    while (count > 0) {
        size_t at = one->received % length;
        size_t here = length - at < count ? length - at : count;
        if (memcmp(pattern.reply + at, data, here) != 0)
            give_up("message %zu: not an echo: %.80s", one->confirmed + 1, data);
        one->received += here;
        data += here;
        count -= here;
    }
    size_t next = one->confirmed % pattern.messages;
    uint64_t round = one->confirmed / pattern.messages * (uint64_t)length;
    while (round + pattern.reply_end[next] <= one->received) {
        one->confirmed++;
        if (++next == pattern.messages) {
            next = 0;
            round += length;
        }
    }
}

static void judge(struct connection *one, const char *line, size_t length)
{
    if (length > 0 && line[length - 1] == '\r')
        length--;
    enum verdict verdict = options.wire->judge(line, length);
    if (verdict == REFUSED)
        give_up("message %zu: refused: %.*s", one->confirmed + 1, (int)length, line);
    if (verdict == CONFIRMED)
        one->confirmed++;
    if (verdict == ALL_CONFIRMED)
        one->confirmed = one->quota;
}

static void take_lines(struct connection *one, const char *data, size_t count)
{
    const char *end = data + count, *feed;
    while ((feed = memchr(data, '\n', (size_t)(end - data))) != NULL) {
        size_t length = (size_t)(feed - data);
        if (one->line_length == 0) {
            judge(one, data, length);
        } else {
            if (one->line_length + length > LONGEST_LINE)
                give_up("a reply of more than %d bytes", LONGEST_LINE);
            memcpy(one->line + one->line_length, data, length);
            judge(one, one->line, one->line_length + length);
            one->line_length = 0;
        }
        data = feed + 1;
    }
    size_t rest = (size_t)(end - data);
    if (one->line_length + rest > LONGEST_LINE)
        give_up("a reply of more than %d bytes", LONGEST_LINE);
    memcpy(one->line + one->line_length, data, rest);
    one->line_length += rest;
}

static void measure(struct connection *one)
{
    if (one->mark == 0 || one->confirmed < one->mark)
        return;
    if (sample_count < MOST_SAMPLES)
        samples[sample_count++] = (float)(now() - one->marked_at);
    one->mark = 0;
}

static void receive(struct connection *one)
{
    ssize_t count = recv(one->fd, buffer, sizeof buffer, 0);
    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0)
        give_up("the server closed after message %zu: %s", one->confirmed,
                count < 0 ? strerror(errno) : "end of stream");
    if (options.wire->echoes)
        take_echo(one, buffer, (size_t)count);
    else if (options.wire->judge != NULL)
        take_lines(one, buffer, (size_t)count);
    if (one->confirmed > one->allowed)
        give_up("message %zu confirmed, but %zu sent", one->confirmed, one->allowed);
    measure(one);
}

/* ---- connecting ---- */

/* Connects and shakes hands, blocking: none of it is measured. */
static int open_connection(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct wire *wire = options.wire;
    char answer[4096];
    size_t length = 0;
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        give_up("connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (wire->greeting == NULL)
        return fd;
    if (write(fd, wire->greeting, strlen(wire->greeting)) < 0)
        give_up("send: %s", strerror(errno));
    do {
        ssize_t count = read(fd, answer + length, sizeof answer - 1 - length);
        if (count <= 0)
            give_up("no welcome");
        length += (size_t)count;
        answer[length] = '\0';
        check_deadline();
    } while (!wire->welcomed(answer));
    return fd;
}

/* What one connection may have in flight: its window, less where they are very many. */
static size_t window_of(bool waiter, size_t quota)
{
    size_t bytes = options.window_bytes, share = ALL_WINDOWS / options.connections;
    size_t message = pattern_length(pattern.request_end) / pattern.messages;
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

static void open_all(void)
{
    size_t pushers = options.connections - options.waiters;
    connections = calloc(options.connections, sizeof *connections);
    if (connections == NULL)
        give_up("out of memory");
    for (size_t i = 0; i < options.connections; i++) {
        struct connection *one = &connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        one->fd = open_connection();
        one->waiter = i >= pushers;
        one->quota = one->waiter ? options.waiter_messages
                                 : options.messages / pushers + (i < options.messages % pushers);
        one->window = window_of(one->waiter, one->quota);
        fcntl(one->fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, one->fd, &event) < 0)
            give_up("epoll_ctl: %s", strerror(errno));
    }
}

/* ---- the run ---- */

static bool done(const struct connection *one)
{
    if (options.wire->echoes || options.wire->judge != NULL)
        return one->confirmed >= one->quota;
    return one->sent >= end_of(pattern.request_end, one->quota);
}

/* The waiters are through: what the pushers have sent is still to be answered, no more. */
static void stop_pushers(void)
{
    for (size_t i = 0; i < options.connections; i++)
        connections[i].quota = connections[i].allowed;
}

static size_t open_work(size_t from, size_t to)
{
    size_t busy = 0;
    for (size_t i = from; i < to; i++)
        busy += !done(&connections[i]);
    return busy;
}

static void serve(struct connection *one, size_t *busy, size_t *waiting)
{
    bool before = done(one);
    receive(one);
    send_more(one);
    if (!before && done(one)) {
        --*busy;
        *waiting -= one->waiter;
    }
}

static void turn(size_t *busy, size_t *waiting)
{
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, 1000);
    for (int i = 0; i < count; i++) {
        serve(events[i].data.ptr, busy, waiting);
        /* A waiter's reply must not lie here behind the pushers': its wait is the server's. */
        for (size_t w = options.connections - options.waiters; w < options.connections; w++)
            serve(&connections[w], busy, waiting);
    }
    check_deadline();
}

static void push(void)
{
    size_t busy, waiting = options.waiters;
    for (size_t i = 0; i < options.connections; i++)
        send_more(&connections[i]);
    busy = open_work(0, options.connections);
    while (busy > 0) {
        turn(&busy, &waiting);
        if (options.waiters > 0 && waiting == 0) {
            stop_pushers();
            busy = open_work(0, options.connections);
        }
    }
}

/* For peers that answer nothing: it is done when the file holds a line for each message. */
static void await_file(void)
{
    size_t lines = 0;
    int fd = -1;
    while (lines < options.messages) {
        ssize_t count;
        if (fd < 0)
            fd = open(options.count_file, O_RDONLY | O_CLOEXEC);
        while (fd >= 0 && (count = read(fd, buffer, sizeof buffer)) > 0)
            for (char *at = buffer; (at = memchr(at, '\n', (size_t)(buffer + count - at))); at++)
                lines++;
        check_deadline();
        usleep(500);
    }
}

static void write_to_pipe(void)
{
    struct connection one = {.fd = STDOUT_FILENO, .quota = options.messages,
                             .window = options.messages};
    struct iovec piece[8];
    uint64_t target = end_of(pattern.request_end, one.quota);
    while (one.sent < target) {
        ssize_t count = writev(one.fd, piece, pieces(&one, target, piece, 8));
        if (count < 0)
            give_up("write: %s", strerror(errno));
        one.sent += (uint64_t)count;
    }
}

/* ---- the report ---- */

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(double share)
{
    size_t at = (size_t)(share * (double)sample_count);
    if (sample_count == 0)
        return 0;
    return samples[at < sample_count ? at : sample_count - 1] * 1e6;
}

static size_t all_confirmed(void)
{
    size_t sum = 0;
    for (size_t i = 0; i < options.connections; i++)
        sum += connections[i].confirmed;
    return sum;
}

static void report(double seconds)
{
    bool answered = options.wire->echoes || options.wire->judge != NULL;
    size_t messages = answered ? all_confirmed() : options.messages;
    qsort(samples, sample_count, sizeof *samples, by_size);
    printf("{\"messages\": %zu, \"acknowledged\": %s, \"seconds\": %.6f, \"waits\": %zu, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"worst_us\": %.1f}\n",
           messages, answered ? "true" : "false", seconds, sample_count, percentile(0.5),
           percentile(0.99), percentile(1));
}

/* Keeps the connections open and silent until standard input ends. */
static void hold(void)
{
    printf("{\"held\": %zu}\n", options.connections);
    fflush(stdout);
    while (read(STDIN_FILENO, buffer, sizeof buffer) > 0)
        ;
}

/* ---- the command line ---- */

static size_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0')
        give_up("not a number: %s", text);
    return (size_t)value;
}

static enum kind find_kind(const char *name)
{
    static const char *const names[] = {"ascii", "utf8", "escape", "more"};
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0)
            return (enum kind)i;
    give_up("unknown kind: %s", name);
}

static void take_option(int letter)
{
    switch (letter) {
    case 'w': options.wire = find_wire(optarg); break;
    case 'k': options.kind = find_kind(optarg); break;
    case 'p': options.port = (int)number(optarg); break;
    case 'c': options.connections = number(optarg); break;
    case 'm': options.messages = number(optarg); break;
    case 's': options.size = number(optarg); break;
    case 'W': options.window = number(optarg); break;
    case 'B': options.window_bytes = number(optarg); break;
    case 'a': options.waiters = number(optarg); break;
    case 'A': options.waiter_messages = number(optarg); break;
    case 't': options.timeout = (double)number(optarg); break;
    case 'f': options.count_file = optarg; break;
    case 'h': options.hold = true; break;
    default: exit(2);
    }
}

static void take_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"wire", 1, NULL, 'w'}, {"kind", 1, NULL, 'k'}, {"port", 1, NULL, 'p'},
        {"connections", 1, NULL, 'c'}, {"messages", 1, NULL, 'm'}, {"size", 1, NULL, 's'},
        {"window", 1, NULL, 'W'}, {"window-bytes", 1, NULL, 'B'}, {"waiters", 1, NULL, 'a'},
        {"waiter-messages", 1, NULL, 'A'}, {"timeout", 1, NULL, 't'},
        {"count-file", 1, NULL, 'f'}, {"hold", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int letter;
    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1)
        take_option(letter);
    if (options.wire == NULL)
        give_up("--wire: msgd, echo, syslog, pipe, relp, redis, nats or journal");
    if (options.connections <= options.waiters || options.messages == 0)
        give_up("nothing to push");
}

int main(int argc, char **argv)
{
    take_options(argc, argv);
    started = now();
    pattern = make_pattern(options.wire, options.kind, options.size,
                           options.wire->numbered ? options.messages : PATTERN_MESSAGES);
    samples = malloc(MOST_SAMPLES * sizeof *samples);
    poller = epoll_create1(0);
    if (samples == NULL || poller < 0)
        give_up("%s", strerror(errno));
    if (strcmp(options.wire->name, "pipe") == 0) {
        write_to_pipe();
        return 0;
    }
    open_all();
    if (options.hold) {
        hold();
        return 0;
    }
    double begin = now();
    push();
    if (options.count_file != NULL)
        await_file();
    report(now() - begin);
    return 0;
}
