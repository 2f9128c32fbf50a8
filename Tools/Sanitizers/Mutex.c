// Shows the thread sanitizer what orders the two sides of a contended `Mutex`.
//
// Swift's Mutex takes and gives back a free lock by an atomic operation that is compiled into the
// code that uses it, where the sanitizer sees it. A contended lock goes to libswiftSynchronization,
// which is not compiled for the sanitizer, and to the kernel: then the sanitizer takes what the lock
// protects for a race. Preloaded, this tells it: whoever gives the lock back publishes what was done
// under it, and whoever has got it takes that over. It does so at the address of the lock, as the
// atomic operations do, so that nothing is ordered that the lock does not order.
//
// Swift's functions get what they belong to in a register of its own, which is `swift_context`.
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self

// Null in a process without the sanitizer.
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define TRY "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"

SWIFT void lockSlow(uint32_t thread, SELF) __asm__(LOCK);
SWIFT void unlockSlow(SELF) __asm__(UNLOCK);
SWIFT bool tryLockSlow(SELF) __asm__(TRY);

SWIFT void lockSlow(uint32_t thread, SELF) {
  SWIFT void (*next)(uint32_t, SELF) = dlsym(RTLD_NEXT, LOCK);
  next(thread, self);
  if (__tsan_acquire) __tsan_acquire(self);
}

SWIFT void unlockSlow(SELF) {
  SWIFT void (*next)(SELF) = dlsym(RTLD_NEXT, UNLOCK);
  if (__tsan_release) __tsan_release(self);
  next(self);
}

SWIFT bool tryLockSlow(SELF) {
  SWIFT bool (*next)(SELF) = dlsym(RTLD_NEXT, TRY);
  bool isLocked = next(self);
  if (isLocked && __tsan_acquire) __tsan_acquire(self);
  return isLocked;
}
