package io.qnbd.server.tls;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CompletableFuture;

/** What clients do with {@link TlsTestServer} once they are connected. */
final class Transfer {
  private static final int PIECE_BYTES = 100_000; // no multiple of anything

  private Transfer() {}

  static void echo(InputStream in, OutputStream out, String text) throws IOException {
    byte[] sent = text.getBytes(StandardCharsets.UTF_8);
    out.write(sent);
    out.flush();
    assertArrayEquals(sent, in.readNBytes(sent.length));
  }

  /** Asks for the blob, and looks at every byte. */
  static void receiveBlob(InputStream in, OutputStream out) throws IOException {
    out.write('B');
    out.flush();
    expectBlob(in);
  }

  /** Sends as much as the blob, while it comes back. */
  static void echoBlob(InputStream in, OutputStream out) throws IOException {
    CompletableFuture<Void> sending = CompletableFuture.runAsync(() -> sendBlob(out));
    expectBlob(in);
    sending.join();
  }

  private static void sendBlob(OutputStream out) {
    byte[] piece = new byte[PIECE_BYTES];
    try {
      for (int at = 0; at < TlsTestServer.BLOB_BYTES; at += PIECE_BYTES) {
        int bytes = Math.min(PIECE_BYTES, TlsTestServer.BLOB_BYTES - at);
        for (int i = 0; i < bytes; i++) {
          piece[i] = TlsTestServer.blob(at + i);
        }
        out.write(piece, 0, bytes);
      }
      out.flush();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void expectBlob(InputStream in) throws IOException {
    for (int at = 0; at < TlsTestServer.BLOB_BYTES; ) {
      byte[] piece = in.readNBytes(Math.min(PIECE_BYTES, TlsTestServer.BLOB_BYTES - at));
      if (piece.length == 0) {
        throw new AssertionError("the connection ended after " + at + " bytes");
      }
      for (byte b : piece) {
        if (b != TlsTestServer.blob(at++)) {
          throw new AssertionError("wrong byte at " + (at - 1));
        }
      }
    }
  }

  /** Has the server close; it must say so within TLS. */
  static void expectOrderlyEnd(InputStream in, OutputStream out) throws IOException {
    out.write('Q');
    out.flush();
    assertEquals(-1, in.read()); // throws if close_notify is missing
  }
}
