package io.qnbd.server.os;

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

  public static final int SIGHUP = 1;
  public static final int SIGINT = 2;
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
  private static final long SIG_DFL = 0;

  /** {@code struct sockaddr_storage}: the room for an address of any family. */
  private static final int ADDRESS_BYTES_MAX = 128;

  /**
   * The one shape of all calls, the same that the image module's calls have, since linking a shape
   * takes Java 10 ms at every start. By the rules of both machines an int or a pointer takes a
   * register as a long does, the callee looks at no more of it than it needs, and a register that
   * it does not know of does no harm. Of the result of a function that returns an int the low half
   * counts.
   */
  private static final MethodHandle CALL =
      Linker.nativeLinker()
          .downcallHandle(
              FunctionDescriptor.of(
                  JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG),
              Linker.Option.captureCallState("errno"));

  private static final VarHandle ERRNO =
      Linker.Option.captureStateLayout()
          .varHandle(MemoryLayout.PathElement.groupElement("errno"))
          .withInvokeExactBehavior();

  private SystemCalls() {}

  /** Sets the permissions that new files do not get, and returns the former ones. */
  public static int umask(int mask) {
    return call("umask", mask, 0, 0, 0, 0, 0);
  }

  /** The process that started this one, or that has taken it over because that one has ended. */
  public static int parentPid() {
    return call("getppid", 0, 0, 0, 0, 0, 0);
  }

  /**
   * Asks for {@code signal} when the parent ends. It holds for as long as the calling thread lives,
   * and the "parent" is the thread that made this process.
   */
  public static int signalAtEndOfParent(int signal) {
    return call("prctl", PR_SET_PDEATHSIG, signal, 0, 0, 0, 0);
  }

  /** Gives a signal the action that it has in a program that does not mind it: the end. */
  public static int defaultAction(int signal) {
    return call("signal", signal, SIG_DFL, 0, 0, 0, 0);
  }

  /** The value of a socket option, or an error. */
  public static int socketOption(int fd, int option) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment value = arena.allocate(JAVA_INT);
      MemorySegment bytes = arena.allocateFrom(JAVA_INT, (int) JAVA_INT.byteSize());
      int result = call("getsockopt", fd, SOL_SOCKET, option, value.address(), bytes.address(), 0);
      return result < 0 ? result : value.get(JAVA_INT, 0);
    }
  }

  /** The address that a socket is bound to, as a {@code sockaddr}; empty when it cannot be had. */
  public static byte[] socketName(int fd) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment address = arena.allocate(ADDRESS_BYTES_MAX, 8);
      MemorySegment bytes = arena.allocateFrom(JAVA_INT, ADDRESS_BYTES_MAX);
      int result = call("getsockname", fd, address.address(), bytes.address(), 0, 0, 0);
      return result < 0
          ? new byte[0]
          : address.asSlice(0, bytes.get(JAVA_INT, 0)).toArray(JAVA_BYTE);
    }
  }

  /** Makes calls on the descriptor return at once, and keeps it from programs that are started. */
  public static int makeNonBlockingAndPrivate(int fd) {
    int flags = call("fcntl", fd, F_GETFL, 0, 0, 0, 0);
    if (flags < 0) {
      return flags;
    }
    int set = call("fcntl", fd, F_SETFL, flags | O_NONBLOCK, 0, 0, 0);
    return set < 0 ? set : call("fcntl", fd, F_SETFD, FD_CLOEXEC, 0, 0, 0);
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
      int fd = call("socket", AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0, 0);
      if (fd < 0) {
        return fd;
      }
      MemorySegment address = arena.allocate(ADDRESS_BYTES_MAX, 8);
      address.set(JAVA_SHORT, 0, (short) AF_UNIX);
      MemorySegment.copy(path, 0, address, JAVA_BYTE, 2, path.length);
      MemorySegment bytes = arena.allocateFrom(JAVA_BYTE, message);
      int sent =
          call(
              "sendto", fd, bytes.address(), message.length, 0, address.address(), 2 + path.length);
      call("close", fd, 0, 0, 0, 0, 0);
      return Math.min(sent, 0);
    }
  }

  /** Microseconds of the clock that no one sets. */
  public static long monotonicMicros() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment time = arena.allocate(16, 8); // struct timespec: seconds, nanoseconds
      call("clock_gettime", CLOCK_MONOTONIC, time.address(), 0, 0, 0, 0);
      return time.get(JAVA_LONG, 0) * 1_000_000 + time.get(JAVA_LONG, 8) / 1_000;
    }
  }

  /** An error number, negated or not, in the C library's words. */
  public static String reason(int error) {
    try (Arena arena = Arena.ofConfined()) {
      long text = invoke("strerror", state(arena), Math.abs(error), 0, 0, 0, 0, 0);
      return MemorySegment.ofAddress(text).reinterpret(256).getString(0);
    }
  }

  private static MemorySegment state(Arena arena) {
    return arena.allocate(Linker.Option.captureStateLayout());
  }

  private static int call(String function, long a, long b, long c, long d, long e, long f) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = state(arena);
      int result = (int) invoke(function, state, a, b, c, d, e, f);
      return result == -1 ? -(int) ERRNO.get(state, 0L) : result;
    }
  }

  private static long invoke(
      String function, MemorySegment state, long a, long b, long c, long d, long e, long f) {
    MemorySegment address = Linker.nativeLinker().defaultLookup().findOrThrow(function);
    try {
      return (long) CALL.invokeExact(address, state, a, b, c, d, e, f);
    } catch (Error | RuntimeException unchecked) {
      throw unchecked;
    } catch (Throwable declared) {
      throw new AssertionError("a native call throws nothing", declared);
    }
  }
}
