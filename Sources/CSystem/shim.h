// What the Swift overlay of the C library leaves out. Header only: no C file is compiled.
#ifndef MARTLET_CSYSTEM_SHIM_H
#define MARTLET_CSYSTEM_SHIM_H

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

// O_DIRECT is hidden without _GNU_SOURCE, which must not be defined in one module alone.
static inline int system_open_direct_flag(void) { return __O_DIRECT; }

// fallocate with FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, hidden for the same reason.
extern int fallocate(int descriptor, int mode, off_t offset, off_t count);
static inline int system_punch_hole(int descriptor, int64_t offset, int64_t count) {
  return fallocate(descriptor, 1 | 2, offset, count);
}

// renameat2 with RENAME_EXCHANGE, hidden for the same reason.
extern int renameat2(int from, const char *old_path, int to, const char *new_path, unsigned flags);
static inline int system_exchange(const char *one, const char *other) {
  return renameat2(AT_FDCWD, one, AT_FDCWD, other, 2);
}

// mremap with MREMAP_MAYMOVE, hidden for the same reason, and variadic.
extern void *mremap(void *old, size_t old_size, size_t new_size, int flags, ...);
static inline void *system_resize_mapping(void *old, size_t old_size, size_t new_size) {
  return mremap(old, old_size, new_size, 1);
}

// memmem, hidden for the same reason.
extern void *memmem(const void *bytes, size_t size, const void *wanted, size_t wanted_size);

// sched_getaffinity, hidden for the same reason. How many processors the calling thread may run on;
// 1 when the kernel does not say.
extern int sched_getaffinity(int process, size_t bytes, void *mask);
static inline int system_processor_count(void) {
  uint64_t mask[128] = {0};
  if (sched_getaffinity(0, sizeof mask, mask) != 0) return 1;
  int count = 0;
  for (int index = 0; index < 128; index += 1) count += __builtin_popcountll(mask[index]);
  return count;
}

// epoll_data is a union with a name that Swift cannot build in one expression.
static inline struct epoll_event system_epoll_event(uint32_t events, uint64_t data) {
  struct epoll_event event;
  event.events = events;
  event.data.u64 = data;
  return event;
}
static inline uint64_t system_epoll_data(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t system_epoll_events(const struct epoll_event *event) { return event->events; }

// A global variable, which Swift does not let pass as safe between threads.
extern char **environ;
static inline char **system_environment(void) { return environ; }

// A variadic call, which Swift does not import.
static inline void system_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

#if defined(__x86_64__)
static inline int system_has_crc32c(void) { return __builtin_cpu_supports("sse4.2"); }

__attribute__((target("sse4.2"))) static inline uint32_t system_crc32c(
    uint32_t crc, const uint8_t *bytes, uint64_t count) {
  uint64_t state = crc;
  while (count >= 8) {
    uint64_t word;
    __builtin_memcpy(&word, bytes, 8);
    state = __builtin_ia32_crc32di(state, word);
    bytes += 8;
    count -= 8;
  }
  while (count > 0) {
    state = __builtin_ia32_crc32qi((uint32_t)state, *bytes);
    bytes += 1;
    count -= 1;
  }
  return (uint32_t)state;
}

#else
static inline int system_has_crc32c(void) { return 0; }
static inline uint32_t system_crc32c(uint32_t crc, const uint8_t *bytes, uint64_t count) {
  (void)bytes;
  (void)count;
  return crc;
}
#endif

#endif
