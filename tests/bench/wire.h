/* The languages that the load generator speaks, one table entry each (see wire.c). */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>

enum kind { ASCII, UTF8, ESCAPE, MORE };

/* The work as bytes: `messages` requests, sent again and again from the first to the last. */
struct pattern {
    size_t messages;
    char *request;       /* all requests, one after the other */
    size_t *request_end; /* where each one ends */
    char *reply;         /* what has to come back, where that is known beforehand; else NULL */
    size_t *reply_end;
};

enum verdict { IGNORED, CONFIRMED, ALL_CONFIRMED, REFUSED };

struct wire {
    const char *name;
    const char *greeting;                              /* sent on connect, or NULL */
    bool (*welcomed)(const char *received);            /* is the answer to the greeting complete? */
    bool echoes;                                       /* the reply is compared with the pattern */
    bool numbered;                                     /* no two requests alike: the pattern cannot repeat */
    const char *last;                                  /* what follows the last request, or NULL */
    size_t (*request)(char *to, const char *text, size_t size, size_t number);
    enum verdict (*judge)(const char *line, size_t length); /* one line of reply; NULL: no replies */
};

const struct wire *find_wire(const char *name);
struct pattern make_pattern(const struct wire *wire, enum kind kind, size_t size, size_t messages);

#endif
