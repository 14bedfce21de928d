package io.qnbd.server.os;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;

/**
 * System calls about sockets and processes. Linux on x86_64 and aarch64, whose numbers below are
 * the same.
 *
 * <p>As in the kernel, a result below 0 is an error number, negated; {@link #reason} puts it into
 * words. No call waits for anything but the kernel.
 *
 * <p>Thread-safe, but {@link #umask} is the whole process's.
 */
@SuppressWarnings("restricted") // native calls are the purpose of this class
public final class SystemCalls {
  public static final int AF_UNIX = 1;
  public static final int AF_INET = 2;
  public static final int AF_INET6 = 10;

  public static final int SOCK_STREAM = 1;

  /** Socket options whose value is an int, at the level SOL_SOCKET. */
  public static final int SO_TYPE = 3;

  public static final int SO_ACCEPTCONN = 30;
  public static final int SO_DOMAIN = 39;

  public static final int ENOTSOCK = 88;
  public static final int EBADF = 9;

  /** The longest path of a unix socket: {@code sun_path} has 108 bytes, the last of them 0. */
  public static final int UNIX_PATH_BYTES_MAX = 107;

  public static final int SIGTERM = 15;

  private static final int SOL_SOCKET = 1;
  private static final int SOCK_DGRAM = 2;
  private static final int SOCK_CLOEXEC = 0x80000;
  private static final int F_SETFD = 2;
  private static final int F_GETFL = 3;
  private static final int F_SETFL = 4;
  private static final int FD_CLOEXEC = 1;
  private static final int O_NONBLOCK = 0x800;
  private static final int PR_SET_PDEATHSIG = 1;
  private static final int CLOCK_MONOTONIC = 1;

  /** {@code struct sockaddr_storage}: the room for an address of any family. */
  private static final int ADDRESS_BYTES_MAX = 128;

  private static final Linker LINKER = Linker.nativeLinker();

  private static final VarHandle ERRNO =
      Linker.Option.captureStateLayout()
          .varHandle(MemoryLayout.PathElement.groupElement("errno"))
          .withInvokeExactBehavior();

  private SystemCalls() {}

  /** Sets the permissions that new files do not get, and returns the former ones. */
  public static int umask(int mask) {
    try {
      return (int) Umask.CALL.invokeExact(mask);
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** The process that started this one, or that has taken it over because that one has ended. */
  public static int parentPid() {
    try {
      return (int) Getppid.CALL.invokeExact();
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /**
   * Asks for {@code signal} when the parent ends. It holds for as long as the calling thread lives,
   * and the "parent" is the thread that made this process.
   */
  public static int signalAtEndOfParent(int signal) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = state(arena);
      return result(state, (int) Prctl.CALL.invokeExact(state, PR_SET_PDEATHSIG, (long) signal));
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** The value of a socket option, or an error. */
  public static int socketOption(int fd, int option) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = state(arena);
      MemorySegment value = arena.allocate(JAVA_INT);
      MemorySegment bytes = arena.allocateFrom(JAVA_INT, (int) JAVA_INT.byteSize());
      int result = (int) Getsockopt.CALL.invokeExact(state, fd, SOL_SOCKET, option, value, bytes);
      return result < 0 ? result(state, result) : value.get(JAVA_INT, 0);
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** The address that a socket is bound to, as a {@code sockaddr}; empty when it cannot be had. */
  public static byte[] socketName(int fd) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment address = arena.allocate(ADDRESS_BYTES_MAX, 8);
      MemorySegment bytes = arena.allocateFrom(JAVA_INT, ADDRESS_BYTES_MAX);
      int result = (int) Getsockname.CALL.invokeExact(state(arena), fd, address, bytes);
      return result < 0
          ? new byte[0]
          : address.asSlice(0, bytes.get(JAVA_INT, 0)).toArray(JAVA_BYTE);
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** Makes calls on the descriptor return at once, and keeps it from programs that are started. */
  public static int makeNonBlockingAndPrivate(int fd) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = state(arena);
      int flags = (int) Fcntl.CALL.invokeExact(state, fd, F_GETFL, 0L);
      if (flags < 0) {
        return result(state, flags);
      }
      int set = (int) Fcntl.CALL.invokeExact(state, fd, F_SETFL, (long) (flags | O_NONBLOCK));
      if (set < 0) {
        return result(state, set);
      }
      return result(state, (int) Fcntl.CALL.invokeExact(state, fd, F_SETFD, (long) FD_CLOEXEC));
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /**
   * Sends one datagram to a unix socket.
   *
   * <pre>
   * struct sockaddr_un (unix(7)): family u16, then the path; a path that begins with a zero byte is
   * a name in the abstract namespace and ends where the length says
   * </pre>
   *
   * @param path at most {@link #UNIX_PATH_BYTES_MAX} bytes, without a zero at the end
   * @return 0, or an error
   */
  public static int sendDatagram(byte[] path, byte[] message) {
    if (path.length > UNIX_PATH_BYTES_MAX) {
      throw new IllegalArgumentException(
          "the path has %d bytes, expected at most %d".formatted(path.length, UNIX_PATH_BYTES_MAX));
    }
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = state(arena);
      int fd = (int) Socket.CALL.invokeExact(state, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
      if (fd < 0) {
        return result(state, fd);
      }
      MemorySegment address = arena.allocate(ADDRESS_BYTES_MAX, 8);
      address.set(JAVA_SHORT, 0, (short) AF_UNIX);
      MemorySegment.copy(path, 0, address, JAVA_BYTE, 2, path.length);
      MemorySegment bytes = arena.allocateFrom(JAVA_BYTE, message);
      long sent =
          (long)
              Sendto.CALL.invokeExact(
                  state, fd, bytes, (long) message.length, 0, address, 2 + path.length);
      int result = sent < 0 ? result(state, -1) : 0;
      int _ = (int) Close.CALL.invokeExact(state, fd);
      return result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** Microseconds of the clock that no one sets. */
  public static long monotonicMicros() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment time = arena.allocate(16, 8); // struct timespec: seconds, nanoseconds
      int _ = (int) ClockGettime.CALL.invokeExact(state(arena), CLOCK_MONOTONIC, time);
      return time.get(JAVA_LONG, 0) * 1_000_000 + time.get(JAVA_LONG, 8) / 1_000;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** An error number, negated or not, in the C library's words. */
  public static String reason(int error) {
    try {
      MemorySegment text = (MemorySegment) Strerror.CALL.invokeExact(Math.abs(error));
      return text.reinterpret(256).getString(0);
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  private static MemorySegment state(Arena arena) {
    return arena.allocate(Linker.Option.captureStateLayout());
  }

  private static int result(MemorySegment state, int result) {
    return result < 0 ? -(int) ERRNO.get(state, 0L) : result;
  }

  private static MethodHandle call(
      String name, FunctionDescriptor descriptor, Linker.Option... options) {
    Linker.Option[] all = new Linker.Option[options.length + 1];
    System.arraycopy(options, 0, all, 1, options.length);
    all[0] = Linker.Option.captureCallState("errno");
    return LINKER.downcallHandle(LINKER.defaultLookup().findOrThrow(name), descriptor, all);
  }

  /** Method handles declare Throwable; what they throw here is unchecked. */
  private static RuntimeException unexpected(Throwable e) {
    switch (e) {
      case Error error -> throw error;
      case RuntimeException unchecked -> throw unchecked;
      default -> throw new AssertionError(e);
    }
  }

  // Linking a call takes Java about 10 ms: each waits until it is made first.

  private static final class Umask {
    static final MethodHandle CALL =
        LINKER.downcallHandle(
            LINKER.defaultLookup().findOrThrow("umask"), FunctionDescriptor.of(JAVA_INT, JAVA_INT));
  }

  private static final class Strerror {
    static final MethodHandle CALL =
        LINKER.downcallHandle(
            LINKER.defaultLookup().findOrThrow("strerror"),
            FunctionDescriptor.of(ADDRESS, JAVA_INT));
  }

  private static final class Getppid {
    static final MethodHandle CALL =
        LINKER.downcallHandle(
            LINKER.defaultLookup().findOrThrow("getppid"), FunctionDescriptor.of(JAVA_INT));
  }

  private static final class Prctl {
    static final MethodHandle CALL =
        call(
            "prctl",
            FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_LONG),
            Linker.Option.firstVariadicArg(1));
  }

  private static final class Fcntl {
    static final MethodHandle CALL =
        call(
            "fcntl",
            FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG),
            Linker.Option.firstVariadicArg(2));
  }

  private static final class Getsockopt {
    static final MethodHandle CALL =
        call(
            "getsockopt",
            FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));
  }

  private static final class Getsockname {
    static final MethodHandle CALL =
        call("getsockname", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));
  }

  private static final class Socket {
    static final MethodHandle CALL =
        call("socket", FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));
  }

  private static final class Sendto {
    static final MethodHandle CALL =
        call(
            "sendto",
            FunctionDescriptor.of(
                JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT, ADDRESS, JAVA_INT));
  }

  private static final class Close {
    static final MethodHandle CALL = call("close", FunctionDescriptor.of(JAVA_INT, JAVA_INT));
  }

  private static final class ClockGettime {
    static final MethodHandle CALL =
        call("clock_gettime", FunctionDescriptor.of(JAVA_INT, JAVA_INT, ADDRESS));
  }
}
