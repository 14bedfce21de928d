package io.qnbd.server;

/** Options that make no sense together or a value out of range; the message is one sentence. */
final class UsageException extends IllegalArgumentException {
  private static final long serialVersionUID = 1;

  UsageException(String message) {
    super(message);
  }
}
