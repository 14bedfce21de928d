package io.qnbd.server;

import io.qnbd.image.OpenOptions;
import io.qnbd.server.net.ListenAddress;
import io.qnbd.server.net.ServerLimits;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What {@code serve} was asked to do.
 *
 * @param addresses where to listen; clients are told the first
 * @param open how every image is opened
 * @param createBytes the size of images that are made because they are not there, or null to make
 *     none
 * @param control where the control socket is to be, or null for none
 */
record ServePlan(
    List<ExportArgument> exports,
    List<ListenAddress> addresses,
    OpenOptions open,
    @Nullable Long createBytes,
    @Nullable Path control,
    ServerLimits limits) {

  ServePlan {
    exports = List.copyOf(exports);
    addresses = List.copyOf(addresses);
  }
}
