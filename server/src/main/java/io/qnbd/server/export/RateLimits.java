package io.qnbd.server.export;

/**
 * How fast the clients of an export may be, all of them together.
 *
 * @param bytesPerSecond bytes that reads and writes carry in a second; 0 for no limit
 * @param requestsPerSecond requests in a second; 0 for no limit
 */
public record RateLimits(long bytesPerSecond, long requestsPerSecond) {

  /** As fast as it goes. */
  public static final RateLimits NONE = new RateLimits(0, 0);

  public RateLimits {
    if (bytesPerSecond < 0 || requestsPerSecond < 0) {
      throw new IllegalArgumentException(
          "rates are %d bytes and %d requests a second, expected 0 or more"
              .formatted(bytesPerSecond, requestsPerSecond));
    }
  }
}
