package io.qnbd.server.control;

import io.qnbd.server.net.ClientInfo;
import java.io.IOException;
import java.util.List;
import java.util.Map;

/**
 * A server as its operator may change it. Each failure is an {@link IOException} whose message is a
 * sentence for that person.
 *
 * <p>Thread-safe; a call blocks for as long as images and clients do.
 */
public interface ControlledServer {

  /** What is done with an export while its image is kept from being closed. */
  @FunctionalInterface
  interface Use<T> {
    T with(ControlledExport export) throws IOException;
  }

  /** The exports of this moment, in the order in which they are listed. */
  List<ControlledExport> exports();

  /**
   * Uses an export's image.
   *
   * @param name where there is only one export, the empty name means it too
   */
  <T> T use(String name, Use<T> use) throws IOException;

  /**
   * Opens an image and serves it.
   *
   * @param keys as a table of the configuration file has them
   */
  ControlledExport add(Map<String, Object> keys) throws IOException;

  /** Sends an export's clients away and closes its image. */
  void remove(String name) throws IOException;

  /** Reads the configuration file again and does what it says. */
  ReloadReport reload() throws IOException;

  /** The clients of this moment. */
  List<ClientInfo> clients();

  /** Sends a client away; false when there is no such client. */
  boolean disconnect(long client);
}
