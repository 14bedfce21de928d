package io.qnbd.protocol.handshake;

import io.qnbd.protocol.ExportInfo;
import java.util.List;
import java.util.Optional;

/** The exports that a client may choose from. Thread-safe, and never blocks. */
public interface ExportCatalog {

  /** All exports that may be listed, in the order in which they are listed. */
  List<ExportInfo> list();

  /** The export of that name; the empty name means the default export. */
  Optional<ExportInfo> find(String name);
}
