/* The languages that the load generator speaks, and the messages that it says in them. */
#include "wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES_OF_MORE 10
#define FRAME 256 /* no wire adds more than this to a text, escapes included */

static size_t put(char *to, const char *head, const char *text, size_t size, const char *tail)
{
    char *end = stpcpy(to, head);
    memcpy(end, text, size);
    return (size_t)(stpcpy(end + size, tail) - to);
}

/* msgd: PING, then MESG lines; the echo is the request, with controls made visible. */
static bool welcomed_by_msgd(const char *received) { return strcmp(received, "PONG\n") == 0; }

static size_t msgd_request(char *to, const char *text, size_t size, size_t number)
{
    (void)number;
    return put(to, "MESG ", text, size, "\n");
}

/* syslog over plain TCP (RFC 6587, 3.4.2), as logger(1) sends it; nothing ever comes back. */
static size_t syslog_request(char *to, const char *text, size_t size, size_t number)
{
    (void)number;
    return put(to, "<13>Nov 24 02:51:07 host bench: ", text, size, "\n");
}

/* multilog reads lines from a pipe. */
static size_t pipe_request(char *to, const char *text, size_t size, size_t number)
{
    (void)number;
    return put(to, "", text, size, "\n");
}

/* RELP: "transaction command length data\n"; each request is answered "transaction rsp 6 200 OK\n". */
static bool welcomed_by_relp(const char *received)
{
    size_t length;
    int head = 0;
    return sscanf(received, "1 rsp %zu%n", &length, &head) == 1 && head > 0 &&
           strlen(received) == (size_t)head + 1 + length + 1;
}

static size_t relp_request(char *to, const char *text, size_t size, size_t number)
{
    static const char tag[] = "<13>Nov 24 02:51:07 host bench: ";
    char head[FRAME];
    /* Transaction 1 was the greeting. */
    snprintf(head, sizeof head, "%zu syslog %zu %s", number + 2, strlen(tag) + size, tag);
    return put(to, head, text, size, "\n");
}

static enum verdict judge_relp(const char *line, size_t length)
{
    static const char good[] = " rsp 6 200 OK";
    size_t tail = sizeof good - 1;
    return length > tail && memcmp(line + length - tail, good, tail) == 0 ? CONFIRMED : REFUSED;
}

/* redis: XADD to one stream; the reply is the entry's id as a bulk string of two lines. */
static size_t redis_request(char *to, const char *text, size_t size, size_t number)
{
    char head[FRAME];
    (void)number;
    snprintf(head, sizeof head,
             "*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nm\r\n$%zu\r\n", size);
    return put(to, head, text, size, "\r\n");
}

static enum verdict judge_redis(const char *line, size_t length)
{
    if (length == 0 || *line == '-')
        return REFUSED;
    return *line == '$' ? IGNORED : CONFIRMED;
}

/* nats: each publication names an inbox to which JetStream sends its acknowledgement. */
static bool welcomed_by_nats(const char *received)
{
    size_t length = strlen(received);
    return length >= 6 && strcmp(received + length - 6, "PONG\r\n") == 0;
}

static size_t nats_request(char *to, const char *text, size_t size, size_t number)
{
    char head[FRAME];
    (void)number;
    snprintf(head, sizeof head, "PUB bench _INBOX.bench %zu\r\n", size);
    return put(to, head, text, size, "\r\n");
}

static enum verdict judge_nats(const char *line, size_t length)
{
    static const char good[] = "{\"stream\":";
    if (length >= sizeof good && memcmp(line, good, sizeof good - 1) == 0)
        return CONFIRMED;
    return length > 0 && (*line == '{' || *line == '-') ? REFUSED : IGNORED;
}

/* systemd-journal-remote: one upload of entries in the journal's export format; one answer. */
static size_t journal_request(char *to, const char *text, size_t size, size_t number)
{
    char head[2 * FRAME] = "";
    if (number == 0)
        strcpy(head, "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                     "application/vnd.fdo.journal\r\nTransfer-Encoding: chunked\r\n\r\n");
    snprintf(head + strlen(head), FRAME, "%zx\r\n__REALTIME_TIMESTAMP=%zu\nMESSAGE=",
             size + strlen("__REALTIME_TIMESTAMP=1700000000000000\nMESSAGE=\n\n"),
             1700000000000000 + number);
    return put(to, head, text, size, "\n\n\r\n");
}

static enum verdict judge_journal(const char *line, size_t length)
{
    if (length < 5 || memcmp(line, "HTTP/", 5) != 0)
        return IGNORED;
    return memcmp(line + 8, " 202", 4) == 0 ? ALL_CONFIRMED : REFUSED;
}

static const struct wire wires[] = {
    {.name = "msgd", .greeting = "PING\n", .welcomed = welcomed_by_msgd, .echoes = true,
     .request = msgd_request},
    {.name = "echo", .echoes = true, .request = msgd_request},
    {.name = "syslog", .request = syslog_request},
    {.name = "pipe", .request = pipe_request},
    {.name = "relp", .numbered = true, .request = relp_request, .judge = judge_relp,
     .greeting = "1 open 50 relp_version=0\nrelp_software=bench\ncommands=syslog\n",
     .welcomed = welcomed_by_relp},
    {.name = "redis", .request = redis_request, .judge = judge_redis},
    {.name = "nats", .request = nats_request, .judge = judge_nats,
     .greeting = "CONNECT {\"verbose\":false}\r\nSUB _INBOX.bench 1\r\nPING\r\n",
     .welcomed = welcomed_by_nats},
    {.name = "journal", .numbered = true, .request = journal_request, .judge = judge_journal,
     .last = "0\r\n\r\n"},
};

const struct wire *find_wire(const char *name)
{
    for (size_t i = 0; i < sizeof wires / sizeof *wires; i++)
        if (strcmp(wires[i].name, name) == 0)
            return &wires[i];
    return NULL;
}

/* A text of exactly `size` bytes that begins with its number, so that no loss goes unseen. */
static void make_text(char *text, enum kind kind, size_t size, size_t number)
{
    static const char plain[] = "the quick brown fox jumps over the lazy dog 0123456789 ";
    static const char wide[] = "съешь ещё этих мягких булок Ünïcödé 日本語 ";
    const char *words = kind == UTF8 ? wide : plain;
    size_t period = strlen(words), at = 0;
    if (size > 8)
        at = (size_t)sprintf(text, "%07zu ", number % 10000000);
    while (at < size) {
        size_t piece = period < size - at ? period : size - at;
        memcpy(text + at, words, piece);
        at += piece;
    }
    /* No character may be cut in two at the end. */
    while (at > 0 && (text[at - 1] & 0x80))
        text[--at] = '.';
}

/* What msgd sends back for the control character that ESCAPE puts into a line. */
static size_t make_visible(char *to, const char *request, size_t length)
{
    size_t end = 0;
    for (size_t i = 0; i < length; i++)
        if (request[i] == '\x1b')
            end += (size_t)sprintf(to + end, "\\x1b");
        else
            to[end++] = request[i];
    return end;
}

static size_t add_request(char *to, const struct wire *wire, enum kind kind, char *text,
                          size_t size, size_t number)
{
    size_t length = 0;
    for (int line = 1; kind == MORE && line < LINES_OF_MORE; line++)
        length += put(to + length, "MORE ", text, size, "\n");
    if (kind == ESCAPE && number % 100 == 50 && size > 0)
        text[size / 2] = '\x1b';
    return length + wire->request(to + length, text, size, number);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (memory == NULL) {
        fputs("load: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* An echo without escapes is the request itself: one copy leaves room in the cache. */
static void share_reply(struct pattern *made, size_t sent, size_t back)
{
    if (made->reply == NULL || sent != back || memcmp(made->request, made->reply, sent) != 0)
        return;
    free(made->reply);
    made->reply = made->request;
}

struct pattern make_pattern(const struct wire *wire, enum kind kind, size_t size, size_t messages)
{
    size_t lines = kind == MORE ? LINES_OF_MORE : 1;
    size_t room = messages * lines * (size + FRAME) + FRAME, sent = 0, back = 0;
    struct pattern made = {.messages = messages};
    char *text = allocate(size + 16);

    made.request = allocate(room);
    made.request_end = allocate(messages * sizeof(size_t));
    made.reply = wire->echoes ? allocate(room) : NULL;
    made.reply_end = wire->echoes ? allocate(messages * sizeof(size_t)) : NULL;
    for (size_t i = 0; i < messages; i++) {
        make_text(text, kind, size, i);
        size_t length = add_request(made.request + sent, wire, kind, text, size, i);
        if (wire->echoes) {
            back += make_visible(made.reply + back, made.request + sent, length);
            made.reply_end[i] = back;
        }
        sent += length;
        made.request_end[i] = sent;
    }
    if (wire->last != NULL)
        made.request_end[messages - 1] += (size_t)sprintf(made.request + sent, "%s", wire->last);
    share_reply(&made, sent, back);
    free(text);
    return made;
}
