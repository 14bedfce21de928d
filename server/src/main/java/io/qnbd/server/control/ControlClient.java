package io.qnbd.server.control;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Map;

/** Asks a server one thing. */
public final class ControlClient {
  private ControlClient() {}

  /** Of 65536 snapshots with names of 64 KiB no reply is as long; it bounds a stranger's. */
  private static final int REPLY_BYTES_MAX = 64 << 20;

  /**
   * What the server said.
   *
   * @param line as it came
   * @param members the same, parsed
   */
  public record Reply(String line, Map<String, Object> members) {}

  /**
   * Sends the request and waits for the reply, for as long as it takes.
   *
   * @throws IOException when there is no server, or the request failed: then the message is the
   *     server's sentence
   */
  public static Reply ask(Path socket, ControlRequest request) throws IOException {
    try (SocketChannel channel = connect(socket)) {
      Channels.newOutputStream(channel)
          .write((request.line() + "\n").getBytes(StandardCharsets.UTF_8));
      LineReader lines = new LineReader(Channels.newInputStream(channel), REPLY_BYTES_MAX);
      return switch (lines.next()) {
        case LineReader.Next.Line line -> reply(line.bytes);
        case LineReader.Next.TooLong() -> throw new IOException(socket + ": the reply is too long");
        case LineReader.Next.End() ->
            throw new IOException(socket + ": the server closed the connection without an answer");
      };
    }
  }

  private static SocketChannel connect(Path socket) throws IOException {
    try {
      return SocketChannel.open(UnixDomainSocketAddress.of(socket));
    } catch (IOException e) {
      throw new IOException(
          "%s: no server answers there (%s); start one with 'qnbd serve --control %s ...'"
              .formatted(socket, e.getMessage(), socket),
          e);
    }
  }

  private static Reply reply(byte[] line) throws IOException {
    Map<String, Object> members = JsonLine.parse(line);
    if (members.get("error") instanceof String sentence) {
      throw new IOException(sentence);
    }
    return new Reply(new String(line, StandardCharsets.UTF_8), members);
  }
}
