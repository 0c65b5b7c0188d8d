/*
 * The load generator: connections that push messages as an honest pipelining client does, with
 * a bounded window of unconfirmed messages each, and that check every reply. One line of JSON
 * at the end. A reply that is not what it has to be ends the run with status 1.
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define PATTERN_MESSAGES 1000
#define MOST_SAMPLES 4000000

struct options options = {
    .connections = 1, .messages = 100000, .size = 100, .window = 4096,
    .window_bytes = 256 * 1024, .timeout = 60,
};
struct pattern pattern;
struct connection *connections;
int poller;
char buffer[BUFFER];
static float *samples; /* seconds */
static size_t sample_count;
static double started;

void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void check_deadline(void)
{
    if (now() - started > options.timeout)
        give_up("not finished after %.0f s", options.timeout);
}

void add_sample(double seconds)
{
    if (sample_count < MOST_SAMPLES)
        samples[sample_count++] = (float)seconds;
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
    struct iovec piece[PIECES];
    uint64_t target = end_of(pattern.request_end, one.quota);
    while (one.sent < target) {
        ssize_t count = writev(one.fd, piece, pieces(&one, target, piece, PIECES));
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
    case 'T': options.tls = true; break;
    case 'S': options.session = true; break;
    case 'P': options.path = optarg; break;
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
        {"count-file", 1, NULL, 'f'}, {"hold", 0, NULL, 'h'}, {"tls", 0, NULL, 'T'},
        {"session", 0, NULL, 'S'}, {"path", 1, NULL, 'P'}, {NULL, 0, NULL, 0}};
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
