package io.qnbd.server.export;

import java.util.Set;
import java.util.stream.Collectors;
import javax.security.auth.x500.X500Principal;
import org.jspecify.annotations.Nullable;

/** Compares what a client has proven to be with what an operator wrote down. */
final class ClientIdentity {
  private ClientIdentity() {}

  /**
   * The names that may use an export: subjects of certificates as RFC 2253 or RFC 1779 has them,
   * and PSK identities, each in the form that {@link #normal} compares.
   */
  static Set<String> normal(Set<String> names) {
    return names.stream().map(ClientIdentity::normal).collect(Collectors.toUnmodifiableSet());
  }

  /** Spaces and the case of letters don't count in a subject; in any other name they do. */
  static String normal(String name) {
    try {
      return new X500Principal(name).getName(X500Principal.CANONICAL);
    } catch (IllegalArgumentException _) {
      return name;
    }
  }

  static boolean isAmong(Set<String> normalNames, @Nullable String identity) {
    return identity != null && normalNames.contains(normal(identity));
  }
}
