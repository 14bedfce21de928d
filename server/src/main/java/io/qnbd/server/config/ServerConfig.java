package io.qnbd.server.config;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import io.qnbd.server.tls.TlsFiles;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;
import org.jspecify.annotations.Nullable;

/**
 * What a configuration file says.
 *
 * @param addresses where to listen; empty when the file does not say
 * @param control where the control socket is to be, or null for none
 * @param tlsFiles null with {@link TlsMode#OFF}
 * @param exports in the order of the file
 * @param serverKeys the keys that are not about exports, with their values as text, to see what
 *     changed
 */
public record ServerConfig(
    Path file,
    List<ListenAddress> addresses,
    @Nullable Path control,
    ServerLimits limits,
    TlsMode tls,
    @Nullable TlsFiles tlsFiles,
    List<ExportPlan> exports,
    Map<String, String> serverKeys) {

  public ServerConfig {
    addresses = List.copyOf(addresses);
    exports = List.copyOf(exports);
    serverKeys = Map.copyOf(serverKeys);
  }

  /** The keys, not about exports, whose values differ between this file and another. */
  public SortedSet<String> serverKeysChangedTo(ServerConfig other) {
    SortedSet<String> keys = new TreeSet<>(serverKeys.keySet());
    keys.addAll(other.serverKeys.keySet());
    keys.removeIf(key ->
        serverKeys.containsKey(key)
            && String.valueOf(serverKeys.get(key)).equals(other.serverKeys.get(key)));
    return keys;
  }
}
