/*
 * archive HOST PORT MESSAGE...: archives each argument as a message, in line framing.
 *
 * Prints each as it was archived. Status 0: all are archived; 1: one was refused; 69: no
 * connection, or lost, or no msgd. Written from msgd-protocol(7) alone.
 */
#define _POSIX_C_SOURCE 200809L
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void lost(const char *what)
{
    fprintf(stderr, "archive: %s\n", what);
    exit(69);
}

static int dial(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *next;
    int fd = -1;

    if (getaddrinfo(host, port, &hints, &found) != 0)
        lost("no such host");
    for (next = found; next != NULL; next = next->ai_next) {
        fd = socket(next->ai_family, next->ai_socktype, next->ai_protocol);
        if (fd >= 0 && connect(fd, next->ai_addr, next->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0)
        lost("cannot connect");
    return fd;
}

/* Each line feed in the text ends one line of the message; the last line is MESG. */
static void put_message(FILE *out, const char *text)
{
    const char *feed;

    while ((feed = strchr(text, '\n')) != NULL) {
        fprintf(out, "MORE %.*s\n", (int)(feed - text), text);
        text = feed + 1;
    }
    fprintf(out, "MESG %s\n", text);
    /* Where that fails there may be replies to read yet; the end of the stream comes behind them. */
    fflush(out);
}

/* One reply, which is several lines where the echo is; 1 if it is the echo, 0 if it is FAIL. */
static int take_reply(FILE *in)
{
    static char *line;
    static size_t room;
    ssize_t size;

    while ((size = getline(&line, &room, in)) > 5 && line[size - 1] == '\n') {
        if (strncmp(line, "FAIL ", 5) == 0) {
            fputs(line, stderr);
            return 0;
        }
        if (strncmp(line, "MESG ", 5) != 0 && strncmp(line, "MORE ", 5) != 0)
            lost("this is no msgd");
        fwrite(line + 5, 1, (size_t)size - 5, stdout);
        if (line[1] == 'E') /* MESG, not MORE */
            return 1;
    }
    lost("connection lost");
    return 0;
}

int main(int argc, char **argv)
{
    int refused = 0, fd;
    char pong[6] = "";
    FILE *in, *out;

    if (argc < 3) {
        fprintf(stderr, "usage: archive HOST PORT MESSAGE...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    fd = dial(argv[1], argv[2]);
    in = fdopen(fd, "r");
    out = fdopen(dup(fd), "w");
    if (in == NULL || out == NULL)
        lost("out of memory");
    fputs("PING\n", out);
    fflush(out);
    if (fgets(pong, sizeof pong, in) == NULL || strcmp(pong, "PONG\n") != 0)
        lost("this is no msgd");
    for (int i = 3; i < argc; i++) {
        put_message(out, argv[i]);
        refused |= !take_reply(in);
    }
    return refused;
}
