package io.qnbd.server.export;

import java.util.Set;

/**
 * What an operator says of an export; all of it but the name may change while it is served.
 *
 * @param name the name that clients ask for; empty for the default export's own
 * @param description a sentence for people, or empty
 * @param tlsRequired whether it is hidden from clients without TLS
 * @param allowedSubjects the TLS identities that may use it; empty for all
 * @param connectionsMax connections to it at a time; 0 for no limit of its own
 * @param connectionsPerClientMax connections to it at a time from one client's address; 0 for no
 *     limit. All clients of Unix sockets count as one
 * @param rates how fast its connections may be together
 */
public record ExportSettings(
    String name,
    String description,
    boolean tlsRequired,
    Set<String> allowedSubjects,
    int connectionsMax,
    int connectionsPerClientMax,
    RateLimits rates) {

  public ExportSettings {
    allowedSubjects = Set.copyOf(allowedSubjects);
    if (connectionsMax < 0 || connectionsPerClientMax < 0) {
      throw new IllegalArgumentException(
          "connections are limited to %d and %d a client, expected 0 or more"
              .formatted(connectionsMax, connectionsPerClientMax));
    }
  }

  /** Open to everybody, without limits. */
  public static ExportSettings of(String name, String description) {
    return new ExportSettings(name, description, false, Set.of(), 0, 0, RateLimits.NONE);
  }

  /** The same with another description. */
  public ExportSettings withDescription(String value) {
    return new ExportSettings(
        name, value, tlsRequired, allowedSubjects, connectionsMax, connectionsPerClientMax, rates);
  }
}
