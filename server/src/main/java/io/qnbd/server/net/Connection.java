package io.qnbd.server.net;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelOutboundBuffer;
import io.netty.channel.ChannelPromise;
import io.netty.channel.EventLoop;
import io.netty.channel.socket.ChannelInputShutdownEvent;
import io.netty.handler.ssl.SslCloseCompletionEvent;
import io.qnbd.protocol.NbdError;
import io.qnbd.protocol.Negotiated;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.RequestRules;
import io.qnbd.protocol.codec.ReplyEncoder;
import io.qnbd.protocol.codec.RequestDecoder;
import io.qnbd.protocol.codec.RequestListener;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.MemoryBudget;
import io.qnbd.server.export.Workers;
import java.io.IOException;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * The transmission phase of one client.
 *
 * <pre>
 * SERVING --shutDown--> DRAINING --all answered--> REFUSING --linger is over--> closed
 *    |                     |                          |
 *    +--- DISC, end of input: ENDING --all answered---+-------> closed
 *    +--- peer reset, broken protocol ------------------------> closed, nothing more is started
 * </pre>
 *
 * <p>In DRAINING what has been received is done and nothing more is read; in REFUSING requests are
 * read and answered ESHUTDOWN.
 *
 * <p>Invariants:
 *
 * <ul>
 *   <li>{@code requestsInFlight} and {@code bytesInFlight} count a request from its admission until
 *       its reply has reached the socket, or is dropped, so that a client that reads no replies is
 *       soon not read either.
 *   <li>The first {@link #OWN_BYTES} in flight are the connection's own; all others, {@code
 *       sharedBytes}, are also taken from the shared budget. So clients that exhaust the budget
 *       cannot stop one that is content with small requests.
 *   <li>After the channel is closed no call enters the image ({@code DEAD} in {@code inImage}).
 *   <li>A pushed call is sent by a scheduled {@link #sendReplies}, or by the {@link #paused} that
 *       ends the decoding during which it was pushed.
 * </ul>
 *
 * <p>Owner: the connection's event loop; only {@link #enterImage}, {@link #leaveImage}, {@link
 * #callDone} and the final fields are for other threads.
 */
final class Connection extends ChannelInboundHandlerAdapter implements RequestListener {
  private static final int DEAD = 1 << 31;

  /**
   * Enough for 32 requests of 4 KiB, so small requests never wait for others' large ones; 4096
   * connections hold 512 MiB beside the budget at most.
   */
  private static final long OWN_BYTES = 128 << 10;

  /**
   * So much is sent at once while more is made, so that the client has something to do meanwhile.
   */
  private static final int FLUSH_BYTES = 128 << 10;

  /** Long enough for a request that was under way when the last reply left; short for a signal. */
  private static final long REFUSING_MILLIS = 250;

  /** Whoever waits under a rate learns so soon that the operator has raised it. */
  private static final long RATE_WAIT_NANOS_MAX = 500_000_000;

  private enum State {
    SERVING,
    DRAINING,
    REFUSING,
    ENDING
  }

  private final Channel channel;
  private final EventLoop loop;
  private final Export export;
  private final RequestRules rules;
  private final ReplyEncoder encoder;
  private final StatusReader statusReader;
  private final ServerLimits limits;
  private final Workers workers;
  private final MemoryBudget budget;
  private final ProblemLog problems;
  private final RequestDecoder decoder;
  private final CompletedCalls completed = new CompletedCalls();
  private final ReplyBatch replies;
  private final LoopCalls loopCalls;
  private final Runnable sendReplies = this::sendReplies;

  /** Calls inside the image; the sign bit says that no more may enter. */
  private final AtomicInteger inImage = new AtomicInteger();

  private State state = State.SERVING;
  private boolean inputEnded;
  private boolean receiving;
  private int requestsInFlight;
  private long bytesInFlight;

  private long sharedBytes;

  /** Held for a request that was admitted, or granted memory, and not yet delivered. */
  private long bytesAdmitted;

  /** What of {@code bytesAdmitted} came from the budget: all or nothing. */
  private long sharedBytesAdmitted;

  /** Of the replies in the batch, and of calls whose replies nobody wants. */
  private int requestsToSend;

  private long bytesToSend;
  private long sharedToSend;
  private long requestsReleased;
  private boolean watched;
  private Progress lastProgress = new Progress(-1, -1, -1, -1);

  /** The request that is being offered has been counted by the export's rate limit. */
  private boolean rateAllowed;

  /** It is not yet its turn, and a timer runs. */
  private boolean rateTimer;

  private MemoryBudget.@Nullable Waiter waiter;

  Connection(
      Channel channel,
      Negotiated negotiated,
      Export export,
      ServerParts parts,
      ProblemLog problems) {
    this.channel = channel;
    this.loop = channel.eventLoop();
    this.export = export;
    this.rules = new RequestRules(negotiated);
    this.encoder = new ReplyEncoder(negotiated.replies());
    this.statusReader = new StatusReader(export, negotiated);
    this.limits = parts.limits();
    this.workers = parts.workers();
    this.budget = parts.budget();
    this.problems = problems;
    this.replies = new ReplyBatch(channel);
    this.loopCalls = new LoopCalls(export, encoder, replies, problems, parts.limits().fastPath());
    this.decoder =
        new RequestDecoder(this, negotiated.replies(), negotiated.export().blockSizes().maximum());
  }

  RequestDecoder decoder() {
    return decoder;
  }

  Export export() {
    return export;
  }

  ReplyEncoder encoder() {
    return encoder;
  }

  StatusReader statusReader() {
    return statusReader;
  }

  ByteBufAllocator allocator() {
    return channel.alloc();
  }

  ProblemLog problems() {
    return problems;
  }

  // Requests, on the event loop.

  @Override
  public Admission admit(Request request) {
    if (request instanceof Request.Disconnect) {
      return Admission.ACCEPT;
    }
    receiving = true;
    if (requestsInFlight >= limits.requestsPerConnection()) {
      return Admission.WAIT;
    }
    if (state == State.REFUSING || rules.refusalOf(request) != null) {
      return Admission.REFUSE;
    }
    if (!rateAllows(request)) {
      return Admission.WAIT;
    }
    long bytes = heldBytesOf(request);
    if (bytes == 0 || bytesAdmitted > 0) {
      return Admission.ACCEPT; // In the second case the budget has called back.
    }
    if (waiter != null) {
      return Admission.WAIT;
    }
    if (bytesInFlight > 0 && bytes > limits.bytesPerConnection() - bytesInFlight) {
      return Admission.WAIT;
    }
    if (bytes <= OWN_BYTES - (bytesInFlight - sharedBytes)) {
      hold(bytes, 0);
      return Admission.ACCEPT;
    }
    if (!budget.tryTake(bytes)) {
      waiter = budget.await(bytes, () -> loop.execute(() -> memoryGranted(bytes)));
      return Admission.WAIT;
    }
    hold(bytes, bytes);
    return Admission.ACCEPT;
  }

  @Override
  public void received(Request request, ByteBuf data) {
    if (request instanceof Request.Disconnect) {
      data.release();
      problems.debug("the client says goodbye");
      endInput();
      return;
    }
    long held = bytesAdmitted;
    long shared = sharedBytesAdmitted;
    bytesAdmitted = 0;
    sharedBytesAdmitted = 0;
    rateAllowed = false;
    requestsInFlight++;
    if (state == State.REFUSING) {
      refuse(request, data, held, shared, NbdError.ESHUTDOWN, "the server shuts down");
      return;
    }
    RequestRules.Refusal refusal = rules.refusalOf(request);
    if (refusal != null) {
      problems.debug(refusal.text());
      refuse(request, data, held, shared, refusal.error(), refusal.text());
      return;
    }
    export.requests().accepted(request);
    switch (loopCalls.run(request, data)) {
      case ANSWERED -> answered(data, held, shared);
      case TO_COMMIT -> {
        data.release();
        workers.callStarted();
        new Call(this, request, Unpooled.EMPTY_BUFFER, held, shared).startCommit();
      }
      case LEFT -> workers.execute(new Call(this, request, data, held, shared));
    }
  }

  private void refuse(
      Request request, ByteBuf data, long held, long shared, NbdError error, String text) {
    Reply.Failed failed = new Reply.Failed(request, error, text);
    encoder.put(replies.room(encoder.roomFor(failed)), failed);
    answered(data, held, shared);
  }

  /** The reply is in the batch. */
  private void answered(ByteBuf data, long held, long shared) {
    data.release();
    requestsToSend++;
    bytesToSend += held;
    sharedToSend += shared;
    if (replies.waitingBytes() >= FLUSH_BYTES) {
      flush();
    }
  }

  /** Sends what was answered while decoding, and sees whether the end has come. */
  @Override
  public void paused() {
    receiving = false;
    sendReplies();
    proceed();
  }

  @Override
  public void malformed(String reason) {
    problems.disconnecting(reason);
    close();
  }

  /**
   * Whether the export's rate allows the request now; if not, it is offered again when it may. A
   * request is counted once, however often it is offered.
   */
  private boolean rateAllows(Request request) {
    if (rateAllowed) {
      return true;
    }
    if (rateTimer) {
      return false;
    }
    long nanos = export.rates().tryTake(dataBytesOf(request));
    if (nanos > 0) {
      rateTimer = true;
      var _ =
          loop.schedule(
              this::rateMayAllow, Math.min(nanos, RATE_WAIT_NANOS_MAX), TimeUnit.NANOSECONDS);
      return false;
    }
    rateAllowed = true;
    return true;
  }

  private void rateMayAllow() {
    rateTimer = false;
    if (decoder.waiting() && !receiving) {
      decoder.resume();
      paused();
    }
  }

  /** The memory that a request and its reply take while they are under way. */
  private static long heldBytesOf(Request request) {
    return request instanceof Request.BlockStatus
        ? StatusReader.REPLY_BYTES_MAX
        : dataBytesOf(request);
  }

  private static long dataBytesOf(Request request) {
    return request instanceof Request.Read || request instanceof Request.Write
        ? request.bytes()
        : 0;
  }

  private void hold(long bytes, long shared) {
    bytesAdmitted = bytes;
    bytesInFlight += bytes;
    sharedBytesAdmitted = shared;
    sharedBytes += shared;
    if (shared > 0) {
      watch();
    }
  }

  private void memoryGranted(long bytes) {
    if (waiter == null) {
      // The channel went away; channelInactive left giving back to us.
      budget.giveBack(bytes);
      return;
    }
    waiter = null;
    hold(bytes, bytes);
    decoder.resume();
    paused();
  }

  // Image calls, on worker and committer threads.

  /** Whether the image may be called; if so, {@link #leaveImage} must follow. */
  boolean enterImage() {
    while (true) {
      int calls = inImage.get();
      if (calls < 0) {
        return false;
      }
      if (inImage.compareAndSet(calls, calls + 1)) {
        return true;
      }
    }
  }

  void leaveImage() {
    if (inImage.decrementAndGet() == DEAD) {
      export.fence().cleared();
    }
  }

  /** Takes over a call that was counted by {@link Workers}. */
  void callDone(Call call) {
    try {
      push(call);
    } catch (RejectedExecutionException _) {
      // The server gave up waiting for this call and is gone; nobody wants the reply.
      dropReplies();
    } finally {
      workers.callEnded();
    }
  }

  private void push(Call call) {
    if (completed.push(call) && !(loop.inEventLoop() && receiving)) {
      loop.execute(sendReplies);
    }
  }

  private void dropReplies() {
    for (Call call = completed.takeAll(); call != null; call = call.next) {
      ByteBuf replyData = call.takeReplyData();
      if (replyData != null) {
        replyData.release();
      }
    }
  }

  // Replies, on the event loop.

  /** Sends the replies of all completed calls, and those made here, in one flush. */
  private void sendReplies() {
    boolean active = channel.isActive();
    for (Call call = completed.takeAll(); call != null; call = call.next) {
      requestsToSend++;
      bytesToSend += call.heldBytes;
      sharedToSend += call.sharedBytes;
      ByteBuf replyData = call.takeReplyData();
      Reply reply = call.reply();
      if (!active || reply == null) {
        if (replyData != null) {
          replyData.release();
        }
      } else if (replyData != null) {
        replies.add(replyData);
      } else {
        encoder.put(replies.room(encoder.roomFor(reply)), reply);
      }
    }
    flush();
  }

  /** What is in the batch leaves; what it answers is no longer in flight when it has. */
  private void flush() {
    int requests = requestsToSend;
    long bytes = bytesToSend;
    long shared = sharedToSend;
    if (requests == 0) {
      return;
    }
    requestsToSend = 0;
    bytesToSend = 0;
    sharedToSend = 0;
    if (replies.isEmpty()) {
      released(requests, bytes, shared);
      return;
    }
    ChannelPromise sent = channel.newPromise();
    sent.addListener(_ -> released(requests, bytes, shared));
    replies.flush(sent);
  }

  /** Replies have reached the socket, or nobody wants them any more. */
  private void released(int requests, long bytes, long shared) {
    requestsInFlight -= requests;
    requestsReleased += requests;
    bytesInFlight -= bytes;
    sharedBytes -= shared;
    if (shared > 0) {
      budget.giveBack(shared);
    }
    if (decoder.waiting() && !receiving) {
      decoder.resume();
      paused();
    } else {
      proceed();
    }
  }

  // Clients that hold shared memory and do nothing.

  /**
   * How far the client has got: replies taken in whole, bytes taken of the next write, bytes that
   * wait for the socket (which tell more where TLS makes many small writes of one reply), bytes
   * sent of a request's data.
   */
  private record Progress(long released, long sent, long unsent, long received) {}

  private void watch() {
    if (!watched) {
      watched = true;
      var _ =
          loop.schedule(
              this::checkProgress, limits.stallDeadline().toNanos(), TimeUnit.NANOSECONDS);
    }
  }

  /**
   * Cuts a client off that keeps others waiting for memory: all of its requests are through the
   * image, and since the last check it has neither taken a byte nor sent one.
   */
  private void checkProgress() {
    watched = false;
    ChannelOutboundBuffer unsent = channel.unsafe().outboundBuffer();
    if (sharedBytes == 0 || unsent == null) {
      return;
    }
    Progress now =
        new Progress(
            requestsReleased,
            unsent.currentProgress(),
            unsent.totalPendingWriteBytes(),
            decoder.dataBytesReceived());
    boolean clientsTurn = unsent.size() > 0 || sharedBytesAdmitted > 0;
    if (now.equals(lastProgress) && clientsTurn && budget.hasWaiters()) {
      problems.disconnecting("it takes no replies, or sends no data, and others wait for memory");
      close();
      return;
    }
    lastProgress = now;
    watch();
  }

  // The end.

  @Override
  public void userEventTriggered(ChannelHandlerContext ctx, Object event) {
    if (event instanceof ChannelInputShutdownEvent || event instanceof SslCloseCompletionEvent) {
      inputEnded = true;
      proceed();
    }
    ctx.fireUserEventTriggered(event);
  }

  @Override
  public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
    if (cause instanceof IOException) {
      problems.debug(cause.toString());
    } else {
      problems.disconnecting(cause.toString());
    }
    close();
  }

  /**
   * The channel is closed: no call enters the image any more. Comes before the channel is inactive
   * and before anybody else learns of its end.
   */
  void died() {
    export.fence().orphaned();
    if (inImage.getAndUpdate(calls -> calls | DEAD) == 0) {
      export.fence().cleared();
    }
  }

  @Override
  public void channelInactive(ChannelHandlerContext ctx) {
    bytesInFlight -= bytesAdmitted;
    bytesAdmitted = 0;
    if (sharedBytesAdmitted > 0) {
      sharedBytes -= sharedBytesAdmitted;
      budget.giveBack(sharedBytesAdmitted);
      sharedBytesAdmitted = 0;
    }
    MemoryBudget.Waiter waiting = waiter;
    waiter = null;
    if (waiting != null) {
      // When that comes too late, memoryGranted is on its way and gives back.
      var _ = budget.cancel(waiting);
    }
    receiving = false;
    sendReplies();
    ctx.fireChannelInactive();
  }

  /** Finishes what has come and closes, refusing what comes in between. */
  void shutDown() {
    if (state == State.SERVING) {
      state = State.DRAINING;
      decoder.setReading(false);
      proceed();
    }
  }

  private void endInput() {
    state = State.ENDING;
    decoder.end();
  }

  /** Takes the next step towards the end, when it is time for one. */
  private void proceed() {
    if (requestsInFlight > 0 || decoder.waiting()) {
      return;
    }
    if (state == State.ENDING || inputEnded) {
      close();
    } else if (state == State.DRAINING) {
      state = State.REFUSING;
      decoder.setReading(true);
      var _ = loop.schedule(this::close, REFUSING_MILLIS, TimeUnit.MILLISECONDS);
    }
  }

  private void close() {
    var _ = channel.close();
  }
}
