package io.qnbd.server.net;

import io.qnbd.protocol.ExportInfo;
import io.qnbd.protocol.WireStrings;
import io.qnbd.protocol.handshake.ExportCatalog;
import io.qnbd.protocol.handshake.Lookup;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.ServedExports;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The exports as one client may see them: those that want TLS only through TLS, those that name
 * their clients only for these, and none that is full.
 *
 * <p>Owner: the connection's event loop.
 */
final class ClientCatalog implements ExportCatalog {
  /** What is known of the client at the moment. */
  interface Client {
    /** Where it connects from: connections from one place are counted together. */
    String address();

    boolean tls();

    /** The name that it has proven, or null. */
    @Nullable String identity();
  }

  private final ServedExports exports;
  private final Client client;
  private @Nullable Export chosen;

  ClientCatalog(ServedExports exports, Client client) {
    this.exports = exports;
    this.client = client;
  }

  /** The export that the client has chosen and has a place in, which its owner gives back. */
  @Nullable Export chosen() {
    return chosen;
  }

  @Override
  public List<ExportInfo> list() {
    return exports.exports().stream()
        .filter(export -> client.tls() || !export.requiresTls())
        .filter(export -> export.admits(client.identity()))
        .map(Export::info)
        .toList();
  }

  @Override
  public Lookup find(String name) {
    Optional<Export> found = exports.export(name);
    return found.isEmpty() ? new Lookup.Unknown() : find(found.get());
  }

  @Override
  public Lookup choose(String name) {
    Optional<Export> found = exports.export(name);
    if (found.isEmpty()) {
      return new Lookup.Unknown();
    }
    Export export = found.get();
    Lookup lookup = find(export);
    if (lookup instanceof Lookup.Found) {
      if (!export.seats().take(export.settings(), client.address())) {
        Optional<String> refusal = export.seats().refusal(export.settings(), client.address());
        return new Lookup.Refused(refusal.orElse("the export has as many clients as it may have"));
      }
      chosen = export;
    }
    return lookup;
  }

  private Lookup find(Export export) {
    if (export.requiresTls() && !client.tls()) {
      return new Lookup.TlsRequired();
    }
    if (!export.admits(client.identity())) {
      return new Lookup.Refused(
          WireStrings.quote(export.info().name()) + " is not open to this client");
    }
    return new Lookup.Found(export.info());
  }
}
