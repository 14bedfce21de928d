package io.qnbd.server.net;

import io.netty.channel.IoHandle;
import io.netty.channel.IoHandler;
import io.netty.channel.IoHandlerContext;
import io.netty.channel.IoHandlerFactory;
import io.netty.channel.IoOps;
import io.netty.channel.IoRegistration;
import io.netty.channel.epoll.EpollIoHandler;
import io.netty.channel.epoll.EpollIoOps;
import io.netty.util.concurrent.ThreadAwareExecutor;
import org.jspecify.annotations.Nullable;

/**
 * Netty's epoll handler with registrations that can lose all interest and take interest again.
 *
 * <p>In Netty 4.2.13 to 4.2.18 a registration that is given {@link EpollIoOps#NONE} deletes its
 * descriptor from epoll and forgets that it did. The next interest is then a modification of what
 * is not there, which fails with ENOENT and closes the channel. A client gets there by sending more
 * than we take at a time and then half-closing: reading is off, and the event of the half-close has
 * been had. What it would lose are its replies.
 *
 * <pre>
 * PENDING --interest--> ADDED --no interest--> cancelled; a new one takes its place: PENDING
 *                       |   ^
 *                       +---+ interest
 * </pre>
 *
 * <p>So Netty's registration is here given up when it loses all interest, and another made for the
 * same handle at once, which enters epoll with its first interest. That is correct on a Netty
 * without the mistake too, only not needed. (Interest in errors alone instead of none would keep
 * the descriptor in epoll, and a hang-up would then wake the loop again and again.)
 *
 * <p>Before the loop sleeps it looks out for events, as {@link PollingStrategy} says.
 *
 * <p>Owner: the event loop, as {@link IoHandler} asks; only {@link #wakeup} and {@link
 * #isCompatible} are for other threads.
 */
final class RenewingEpollHandler implements IoHandler {
  /** Room for as many events at a time as there are, says Netty. */
  private static final int EVENTS_GROW = 0;

  private final IoHandler epoll;

  /** Of the event loop; null until it runs. */
  private @Nullable IoHandlerContext loop;

  private RenewingEpollHandler(ThreadAwareExecutor executor, PollingStrategy.Lookouts lookouts) {
    this.epoll =
        EpollIoHandler.newFactory(
                EVENTS_GROW, () -> new PollingStrategy(lookouts, this::hasTasks, System::nanoTime))
            .newHandler(executor);
  }

  static IoHandlerFactory newFactory(PollingStrategy.Lookouts lookouts) {
    return new IoHandlerFactory() {
      @Override
      public IoHandler newHandler(ThreadAwareExecutor executor) {
        return new RenewingEpollHandler(executor, lookouts);
      }

      @Override
      public boolean isChangingThreadSupported() {
        return true;
      }
    };
  }

  private boolean hasTasks() {
    return loop != null && !loop.canBlock();
  }

  @Override
  public void initialize() {
    epoll.initialize();
  }

  @Override
  public int run(IoHandlerContext context) {
    loop = context;
    return epoll.run(context);
  }

  @Override
  public void prepareToDestroy() {
    epoll.prepareToDestroy();
  }

  @Override
  public void destroy() {
    epoll.destroy();
  }

  @Override
  public void wakeup() {
    epoll.wakeup();
  }

  @Override
  public boolean isCompatible(Class<? extends IoHandle> handleType) {
    return epoll.isCompatible(handleType);
  }

  @Override
  public IoRegistration register(IoHandle handle) throws Exception {
    return new Registration(handle, epoll.register(handle));
  }

  /**
   * {@code current} is valid until {@link #cancel}; only then does the handle stay unregistered.
   *
   * <p>Netty calls {@code submit} on the event loop; the lock is for a {@code cancel} elsewhere.
   */
  private final class Registration implements IoRegistration {
    private final IoHandle handle;
    private IoRegistration current;

    Registration(IoHandle handle, IoRegistration first) {
      this.handle = handle;
      this.current = first;
    }

    @Override
    public synchronized long submit(IoOps ops) {
      if (!ops.equals(EpollIoOps.NONE)) {
        return current.submit(ops);
      }
      if (current.cancel()) {
        try {
          current = epoll.register(handle);
        } catch (Exception failed) {
          throw new IllegalStateException("registering with epoll again", failed);
        }
      }
      return 0;
    }

    @Override
    @SuppressWarnings("TypeParameterUnusedInFormals") // The signature is Netty's.
    public synchronized <T> T attachment() {
      return current.attachment();
    }

    @Override
    public synchronized boolean isValid() {
      return current.isValid();
    }

    @Override
    public synchronized boolean cancel() {
      return current.cancel();
    }
  }
}
