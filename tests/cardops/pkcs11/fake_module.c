/* A PKCS#11 module for tests: one token, and one misbehaviour named by FAKE_BEHAVIOUR. Where FAKE_PRESENT names a file, the
   token is there while that file is.
   Each call that carries a PIN is noted, by name only, in the file FAKE_LOG: the tests' own witness. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong_t;
typedef unsigned char byte_t;

struct version { byte_t major, minor; };
struct info { struct version cryptoki; byte_t manufacturer[32]; ulong_t flags; byte_t description[32]; struct version library; };
struct slot_info { byte_t description[64]; byte_t manufacturer[32]; ulong_t flags; struct version hardware, firmware; };
struct token_info {
    byte_t label[32], manufacturer[32], model[16], serial[16];
    ulong_t flags, counts[4], max_pin, min_pin, memory[4];
    struct version hardware, firmware;
    byte_t time[16];
};
struct session_info { ulong_t slot, state, flags, error; };

enum { OK = 0, NOT_SUPPORTED = 0x54, PIN_INCORRECT = 0xA0 };

static ulong_t state = 2;

static int behaves(const char *name)
{
    const char *given = getenv("FAKE_BEHAVIOUR");
    return given && !strcmp(given, name);
}

static void note(const char *call)
{
    const char *path = getenv("FAKE_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (log) {
        fprintf(log, "%s\n", call);
        fclose(log);
    }
}

static void crash(void) { *(volatile int *)0 = 1; }

static void pad(byte_t *field, size_t size, const char *text)
{
    memset(field, ' ', size);
    memcpy(field, text, strlen(text));
}

static ulong_t unsupported(void) { return NOT_SUPPORTED; }

static ulong_t initialize(void *arguments)
{
    (void)arguments;
    if (behaves("crash-at-start"))
        crash();
    return behaves("refuse-start") ? 0x30 : OK;
}

static ulong_t finalize(void *reserved) { (void)reserved; return OK; }

static ulong_t get_info(struct info *info)
{
    memset(info, 0, sizeof *info);
    info->cryptoki.major = 2;
    info->cryptoki.minor = 40;
    pad(info->manufacturer, 32, "Fake");
    pad(info->description, 32, "Test module");
    return OK;
}

static ulong_t get_slot_list(byte_t present, ulong_t *list, ulong_t *count)
{
    const char *token = getenv("FAKE_PRESENT");
    *count = present && token && access(token, F_OK) ? 0 : 1;
    if (list && *count)
        list[0] = 7;
    return OK;
}

static ulong_t get_slot_info(ulong_t slot, struct slot_info *info)
{
    (void)slot;
    memset(info, 0, sizeof *info);
    pad(info->description, 64, "Fake slot");
    pad(info->manufacturer, 32, "Fake");
    return OK;
}

static ulong_t get_token_info(ulong_t slot, struct token_info *info)
{
    (void)slot;
    if (behaves("hang-on-token")) {
        note("hanging");
        for (;;)
            pause();
    }
    memset(info, 0, sizeof *info);
    pad(info->label, 32, behaves("odd-label") ? "\xff\xfe label" : "fake");
    pad(info->manufacturer, 32, "Fake");
    pad(info->model, 16, "Fake");
    pad(info->serial, 16, "0001");
    info->flags = 0x4 | 0x8 | 0x400;
    if (behaves("final-try"))
        info->flags |= 0x20000 | 0x200000;
    if (behaves("locked"))
        info->flags |= 0x40000 | 0x400000;
    if (behaves("unset"))
        info->flags &= ~0x8ul;
    info->min_pin = 4;
    info->max_pin = 8;
    return OK;
}

static ulong_t get_mechanism_list(ulong_t slot, ulong_t *list, ulong_t *count)
{
    (void)slot;
    (void)list;
    *count = 0;
    return OK;
}

static ulong_t open_session(ulong_t slot, ulong_t flags, void *application, void *notify, ulong_t *session)
{
    (void)slot, (void)flags, (void)application, (void)notify;
    *session = 1;
    return OK;
}

static ulong_t close_session(ulong_t session) { (void)session; return OK; }

static ulong_t get_session_info(ulong_t session, struct session_info *info)
{
    (void)session;
    memset(info, 0, sizeof *info);
    info->state = state;
    return OK;
}

static ulong_t login(ulong_t session, ulong_t user, byte_t *pin, ulong_t length)
{
    (void)session;
    note("C_Login");
    if (behaves("print-pin")) {
        /* What a careless vendor does with its debug output. */
        fwrite(pin, 1, length, stdout);
        fwrite(pin, 1, length, stderr);
        fflush(stdout);
    }
    if (behaves("crash-at-login"))
        crash();
    if (behaves("hang-at-login"))
        for (;;)
            pause();
    if (length != 4 || memcmp(pin, "1234", 4))
        return PIN_INCORRECT;
    state = user == 0 ? 4 : 3;
    return OK;
}

static ulong_t logout(ulong_t session) { (void)session; note("C_Logout"); state = 2; return OK; }

static ulong_t set_pin(ulong_t session, byte_t *old, ulong_t old_length, byte_t *fresh, ulong_t fresh_length)
{
    (void)session, (void)old, (void)old_length, (void)fresh, (void)fresh_length;
    note("C_SetPIN");
    return OK;
}

struct function_list { struct version version; void *functions[68]; };
static struct function_list table;

ulong_t C_GetFunctionList(struct function_list **list)
{
    table.version.major = 2;
    table.version.minor = 40;
    for (int place = 0; place < 68; place++)
        table.functions[place] = (void *)unsupported;
    table.functions[0] = (void *)initialize;
    table.functions[1] = (void *)finalize;
    table.functions[2] = (void *)get_info;
    table.functions[3] = (void *)C_GetFunctionList;
    table.functions[4] = (void *)get_slot_list;
    table.functions[5] = (void *)get_slot_info;
    table.functions[6] = (void *)get_token_info;
    table.functions[7] = (void *)get_mechanism_list;
    table.functions[11] = (void *)set_pin;
    table.functions[12] = (void *)open_session;
    table.functions[13] = (void *)close_session;
    table.functions[15] = (void *)get_session_info;
    table.functions[18] = (void *)login;
    table.functions[19] = (void *)logout;
    *list = &table;
    return OK;
}
