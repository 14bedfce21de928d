package io.qnbd.server.process;

import io.qnbd.server.os.SystemCalls;
import java.io.IOException;

/** The process that started this one. */
public final class Parent {
  /** The launcher's word on who that is, from before there was a JVM to ask. */
  private static final String PROPERTY = "qnbd.parent.pid";

  private Parent() {}

  /**
   * Has SIGTERM sent to this process when its parent ends, for as long as the calling thread lives.
   *
   * @throws IOException with one sentence, when the parent has ended already
   */
  public static void endWithIt() throws IOException {
    int expected = Integer.getInteger(PROPERTY, SystemCalls.parentPid());
    int error = SystemCalls.signalAtEndOfParent(SystemCalls.SIGTERM);
    if (error < 0) {
      throw new IOException("watching the parent process: " + SystemCalls.reason(error));
    }
    // One that ended before the call sends nothing.
    if (SystemCalls.parentPid() != expected) {
      throw new IOException("the process that started this one has ended already");
    }
  }
}
