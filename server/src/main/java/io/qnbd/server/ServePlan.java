package io.qnbd.server;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.config.ExportPlan;
import io.qnbd.server.config.ServerConfig;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import io.qnbd.server.tls.TlsFiles;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What {@code serve} was asked to do.
 *
 * @param exports those of the command line
 * @param addresses where to listen; clients are told the first
 * @param control where the control socket is to be, or null for none
 * @param tlsFiles null with {@link TlsMode#OFF}
 * @param config what the configuration file says, or null without one; of the other components,
 *     what it says is in them already, but for its exports
 */
record ServePlan(
    List<ExportPlan> exports,
    List<ListenAddress> addresses,
    @Nullable Path control,
    ServerLimits limits,
    TlsMode tls,
    @Nullable TlsFiles tlsFiles,
    @Nullable ServerConfig config) {

  ServePlan {
    exports = List.copyOf(exports);
    addresses = List.copyOf(addresses);
  }
}
