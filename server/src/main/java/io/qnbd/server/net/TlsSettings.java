package io.qnbd.server.net;

import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.tls.TlsService;
import org.jspecify.annotations.Nullable;

/**
 * Whether clients may, or must, encrypt, and with what.
 *
 * @param service null exactly in mode OFF
 */
public record TlsSettings(TlsMode mode, @Nullable TlsService service) {
  public static final TlsSettings OFF = new TlsSettings(TlsMode.OFF, null);

  public TlsSettings {
    if ((mode == TlsMode.OFF) != (service == null)) {
      throw new IllegalArgumentException("a service goes with every mode but OFF");
    }
  }
}
