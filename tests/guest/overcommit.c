/*
 * An NVMe driver in user space that fills its submission queue whenever SQHD leaves room, as OSv's does, so that more
 * commands are outstanding than the queue has entries. One I/O queue pair, polling, reads of one block.
 *
 *     overcommit ENTRIES COMMANDS BURSTS
 *
 * It submits COMMANDS as fast as there is room, then waits until all are complete, and so on for BURSTS bursts. When
 * nothing comes for SILENCE_S, it says so and ends with status 3. Needs root, and no kernel driver on the device.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PCI "/sys/bus/pci/devices"
#define SILENCE_S 5
#define ENTRIES_MAX 64 /* one page of a submission queue */
#define COMMANDS_MAX 65536
#define ADMIN_ENTRIES 8

enum { PAGE_ASQ, PAGE_ACQ, PAGE_SQ, PAGE_CQ, PAGE_DATA, PAGES };

struct sqe {
    uint32_t cdw0, nsid;
    uint64_t reserved, metadata, prp1, prp2;
    uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

struct cqe {
    uint32_t dw0, dw1;
    uint16_t sqhd, sqid, cid, status;
};

struct queue {
    volatile struct sqe *sq;
    volatile struct cqe *cq;
    unsigned id, entries, tail, head, cq_head, phase;
};

static volatile uint8_t *bar;
static uint64_t physical[PAGES];
static uint8_t *pages;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void write32(unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(bar + offset) = value;
}

static uint32_t read32(unsigned offset)
{
    return *(volatile uint32_t *)(bar + offset);
}

/* The first NVMe function: its registers are mapped, and it may use memory. */
static void open_device(void)
{
    char path[400], class[16];
    struct dirent *entry;
    DIR *folder = opendir(PCI);
    int found = 0;
    if (!folder)
        fail(PCI);
    while (!found && (entry = readdir(folder))) {
        snprintf(path, sizeof path, PCI "/%s/class", entry->d_name);
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            continue;
        if (read(fd, class, 8) == 8 && !memcmp(class, "0x010802", 8))
            found = 1;
        close(fd);
        if (found) {
            uint16_t command = 6; /* memory space and bus master */
            snprintf(path, sizeof path, PCI "/%s/config", entry->d_name);
            int config = open(path, O_RDWR);
            if (config < 0 || pwrite(config, &command, 2, 4) != 2)
                fail(path);
            close(config);
            snprintf(path, sizeof path, PCI "/%s/resource0", entry->d_name);
        }
    }
    closedir(folder);
    int fd = found ? open(path, O_RDWR | O_SYNC) : -1;
    if (fd < 0)
        fail("no NVMe device");
    bar = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bar == MAP_FAILED)
        fail("BAR0");
}

/* Some locked pages, and where they are for the device. */
static void make_pages(void)
{
    pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
    if (pages == MAP_FAILED)
        fail("mmap");
    memset(pages, 0, PAGES * 4096);
    int fd = open("/proc/self/pagemap", O_RDONLY);
    for (int page = 0; page < PAGES; page++) {
        uint64_t entry;
        off_t at = ((uintptr_t)pages / 4096 + page) * 8;
        if (pread(fd, &entry, 8, at) != 8 || !(entry & ((1ull << 55) - 1)))
            fail("pagemap");
        physical[page] = (entry & ((1ull << 55) - 1)) * 4096;
    }
    close(fd);
}

static int room(const struct queue *q)
{
    return (q->tail + 1) % q->entries != q->head;
}

static void submit(struct queue *q, struct sqe command)
{
    q->sq[q->tail] = command;
    q->tail = (q->tail + 1) % q->entries;
    __sync_synchronize();
    write32(0x1000 + 8 * q->id, q->tail);
}

/* The next completion, released before its SQHD is believed. 0 if there is none. */
static int reap(struct queue *q, struct cqe *found)
{
    volatile struct cqe *entry = &q->cq[q->cq_head];
    if ((entry->status & 1) != q->phase)
        return 0;
    __sync_synchronize();
    *found = *entry;
    if (++q->cq_head == q->entries) {
        q->cq_head = 0;
        q->phase ^= 1;
    }
    write32(0x1000 + 8 * q->id + 4, q->cq_head);
    q->head = found->sqhd;
    return 1;
}

static void admin(struct queue *q, struct sqe command)
{
    struct cqe done;
    double begin = now();
    submit(q, command);
    while (!reap(q, &done))
        if (now() - begin > SILENCE_S)
            fail("an admin command was not completed");
    if (done.status >> 1) {
        fprintf(stderr, "admin command %#x: status %#x\n", command.cdw0 & 0xff, done.status >> 1);
        exit(1);
    }
}

static void wait_ready(uint32_t ready)
{
    double begin = now();
    while ((read32(0x1c) & 1) != ready)
        if (now() - begin > 20)
            fail("CSTS.RDY");
}

static struct queue start(unsigned entries)
{
    struct queue aq = {(void *)(pages + 4096 * PAGE_ASQ), (void *)(pages + 4096 * PAGE_ACQ), 0, ADMIN_ENTRIES, 0, 0, 0, 1};
    struct queue q = {(void *)(pages + 4096 * PAGE_SQ), (void *)(pages + 4096 * PAGE_CQ), 1, entries, 0, 0, 0, 1};
    write32(0x14, 0);
    wait_ready(0);
    write32(0x24, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    write32(0x28, physical[PAGE_ASQ]);
    write32(0x2c, physical[PAGE_ASQ] >> 32);
    write32(0x30, physical[PAGE_ACQ]);
    write32(0x34, physical[PAGE_ACQ] >> 32);
    write32(0x14, 0x00460001);
    wait_ready(1);
    admin(&aq, (struct sqe){.cdw0 = 5 | 1 << 16, .prp1 = physical[PAGE_CQ], .cdw10 = (entries - 1) << 16 | 1, .cdw11 = 1});
    admin(&aq, (struct sqe){.cdw0 = 1 | 2 << 16, .prp1 = physical[PAGE_SQ], .cdw10 = (entries - 1) << 16 | 1, .cdw11 = 1 << 16 | 1});
    return q;
}

int main(int argc, char **argv)
{
    static uint8_t outstanding[COMMANDS_MAX];
    if (argc != 4)
        return fprintf(stderr, "usage: overcommit ENTRIES COMMANDS BURSTS\n"), 2;
    unsigned entries = atoi(argv[1]), commands = atoi(argv[2]), bursts = atoi(argv[3]);
    if (entries < 2 || entries > ENTRIES_MAX || commands > COMMANDS_MAX)
        return fprintf(stderr, "ENTRIES 2 to %d, COMMANDS at most %d\n", ENTRIES_MAX, COMMANDS_MAX), 2;
    open_device();
    make_pages();
    struct queue q = start(entries);
    unsigned most = 0;
    for (unsigned burst = 1; burst <= bursts; burst++) {
        unsigned submitted = 0, done = 0;
        double heard = now();
        while (done < commands) {
            struct cqe entry;
            while (submitted < commands && room(&q)) {
                outstanding[submitted] = 1;
                submit(&q, (struct sqe){.cdw0 = 2 | submitted << 16, .nsid = 1, .prp1 = physical[PAGE_DATA], .cdw10 = submitted % 64});
                submitted++;
            }
            if (submitted - done > most)
                most = submitted - done;
            if (reap(&q, &entry)) {
                if (entry.cid >= submitted || !outstanding[entry.cid] || entry.status >> 1)
                    return printf("OVERCOMMIT wrong: CID %u, status %#x\n", entry.cid, entry.status >> 1), 4;
                outstanding[entry.cid] = 0;
                done++;
                heard = now();
            } else if (now() - heard > SILENCE_S) {
                printf("OVERCOMMIT hang in burst %u: %u of %u commands not completed, at most %u were outstanding\n",
                       burst, commands - done, commands, most);
                return 3;
            }
        }
    }
    printf("OVERCOMMIT ok: %u bursts of %u commands, at most %u were outstanding\n", bursts, commands, most);
    return 0;
}
