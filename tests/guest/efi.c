/*
 * A UEFI program that looks at what its firmware reads from an NVMe disk, says EFI-APP-OK or what was wrong, and powers
 * the machine off. Compile with these defined:
 *
 *     SIZE, SUM           of payload.bin, which is a part of this program: the firmware has read it
 *     BURSTS, COMMANDS    how often so many blocks are asked for at once, without waiting for any
 *     FIRST               the first of 1,024 + COMMANDS blocks, each full of its own number as a 64-bit word
 */
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
#define API __attribute__((ms_abi))
#define SILENCE_MS 5000

struct out { void *reset; API u64 (*print)(struct out *, u16 *); };
struct runtime { u8 header[24]; void *calls[10]; API void (*reset)(int, u64, u64, void *); };
struct boot {
    u8 header[24];
    void *calls_0[7];
    API u64 (*create_event)(u32, u64, void *, void *, void **);
    void *calls_8[4];
    API u64 (*check_event)(void *);
    void *calls_13[15];
    API u64 (*stall)(u64 microseconds);
    void *calls_29[8];
    API u64 (*locate_protocol)(void *, void *, void **);
};
struct system {
    u8 header[24];
    u16 *vendor;
    u64 revision;
    void *in_handle, *in, *out_handle;
    struct out *out;
    void *err_handle, *err;
    struct runtime *runtime;
    struct boot *boot;
};
struct token { void *event; u64 status; };
struct disk { u32 *media; void *reset; API u64 (*read)(struct disk *, u32, u64, struct token *, u64, void *); };

extern u8 data[] __attribute__((visibility("hidden")));
__asm__(".section .data\n.globl data\ndata: .incbin \"payload.bin\"\n.text");

static u8 block_io2[16] = {0x72, 0x24, 0x7b, 0xa7, 0x82, 0xe2, 0x9f, 0x4e, 0xa2, 0x45, 0xc2, 0xc0, 0xe2, 0x7b, 0xbc, 0xc1};
static struct token tokens[COMMANDS];
static u64 blocks[COMMANDS][64];

static u16 *burst(struct boot *boot, struct disk *disk, u64 first)
{
    for (u32 n = 0; n < COMMANDS; n++) {
        blocks[n][0] = 0;
        if (disk->read(disk, *disk->media, first + n, &tokens[n], sizeof blocks[n], blocks[n])) return u"EFI-REFUSED\r\n";
    }
    for (u32 n = 0; n < COMMANDS; n++) {
        for (u32 waited = 0; boot->check_event(tokens[n].event); waited++) {
            if (waited == SILENCE_MS) return u"EFI-HANG\r\n";
            boot->stall(1000);
        }
        if (tokens[n].status || blocks[n][0] != first + n) return u"EFI-BAD-BLOCK\r\n";
    }
    return 0;
}

static u16 *run(struct boot *boot)
{
    struct disk *disk;
    u16 *wrong;
    u64 sum = 0;
    for (u64 at = 0; at < SIZE; at++) sum += data[at];
    if (sum != SUM) return u"EFI-BAD-PAYLOAD\r\n";
    if (boot->locate_protocol(block_io2, 0, (void **)&disk)) return u"EFI-NO-DISK\r\n";
    for (u32 n = 0; n < COMMANDS; n++)
        if (boot->create_event(0, 0, 0, 0, &tokens[n].event)) return u"EFI-NO-EVENT\r\n";
    for (u64 n = 0; n < BURSTS; n++)
        if ((wrong = burst(boot, disk, FIRST + n * COMMANDS % 1024))) return wrong;
    return u"EFI-APP-OK\r\n";
}

API u64 efi_main(void *image, struct system *table)
{
    table->out->print(table->out, run(table->boot));
    table->runtime->reset(2, 0, 0, 0);
    return 0;
}
