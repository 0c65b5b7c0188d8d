/* What goes over a connection of the load generator, and what comes back. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

/* ---- positions in the endless repetition of the pattern ---- */

static size_t pattern_length(const size_t *ends) { return ends[pattern.messages - 1]; }

/* Where message number `count` (from 1) ends in the stream of bytes. */
uint64_t end_of(const size_t *ends, size_t count)
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
int pieces(struct connection *one, uint64_t target, struct iovec *piece, int most)
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

void send_more(struct connection *one)
{
    struct iovec piece[PIECES];
    allow(one);
    uint64_t target = end_of(pattern.request_end, one->allowed);
    while (one->sent < target) {
        ssize_t count = put(one, piece, pieces(one, target, piece, PIECES));
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
    add_sample(now() - one->marked_at);
    one->mark = 0;
}

static void take_reply(struct connection *one, const char *data, size_t count)
{
    if (options.wire->echoes)
        take_echo(one, data, count);
    else if (options.wire->judge != NULL)
        take_lines(one, data, count);
    if (one->confirmed > one->allowed)
        give_up("message %zu confirmed, but %zu sent", one->confirmed, one->allowed);
    measure(one);
}

/* One read of a plain socket, which tells again when there is more; a TLS library does not. */
void receive(struct connection *one)
{
    ssize_t count;
    do {
        count = take(one, buffer, sizeof buffer);
        if (count > 0)
            take_reply(one, buffer, (size_t)count);
    } while (count > 0 && one->tls != NULL);
    if (count == 0 || (count < 0 && errno != EAGAIN))
        give_up("the server closed after message %zu: %s", one->confirmed,
                count < 0 ? strerror(errno) : "end of stream");
}
