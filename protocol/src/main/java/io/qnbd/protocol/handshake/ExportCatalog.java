package io.qnbd.protocol.handshake;

import io.qnbd.protocol.ExportInfo;
import java.util.List;

/**
 * The exports that one client may choose from; it knows who that client is, and whether it uses
 * TLS. Called on the connection's event loop, and never blocks.
 */
public interface ExportCatalog {

  /** All exports that may be listed, in the order in which they are listed. */
  List<ExportInfo> list();

  /** The export of that name; the empty name means the default export. */
  Lookup find(String name);

  /**
   * The same for a client that enters transmission if it is {@link Lookup.Found}: it then has a
   * place in that export until its connection ends.
   */
  default Lookup choose(String name) {
    return find(name);
  }
}
