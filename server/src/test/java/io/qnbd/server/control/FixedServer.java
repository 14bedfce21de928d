package io.qnbd.server.control;

import io.qnbd.server.net.ClientInfo;
import java.io.IOException;
import java.time.Instant;
import java.util.List;
import java.util.Map;

/** A server whose exports stay as they are, and that keeps what it was asked for. */
final class FixedServer implements ControlledServer {
  private final List<ControlledExport> exports;
  volatile Map<String, Object> added = Map.of();
  volatile String removed = "";

  FixedServer(List<ControlledExport> exports) {
    this.exports = exports;
  }

  @Override
  public List<ControlledExport> exports() {
    return exports;
  }

  @Override
  public <T> T use(String name, Use<T> use) throws IOException {
    for (ControlledExport each : exports) {
      if (each.export().settings().name().equals(name)) {
        return use.with(each);
      }
    }
    throw new IOException("no export is named '" + name + "'");
  }

  @Override
  public ControlledExport add(Map<String, Object> keys) {
    added = keys;
    return exports.getFirst();
  }

  @Override
  public void remove(String name) {
    removed = name;
  }

  @Override
  public ReloadReport reload() {
    return new ReloadReport(
        "q.toml",
        List.of("n"),
        List.of(),
        List.of("o", "p"),
        List.of(),
        4,
        List.of("export 'bad': no"),
        List.of("listen"));
  }

  @Override
  public List<ClientInfo> clients() {
    return List.of(
        new ClientInfo(
            3, "/127.0.0.1:7", "a", "CN=me", true, Instant.parse("2026-11-24T01:02:03.5Z")),
        new ClientInfo(4, "x", null, null, false, Instant.EPOCH));
  }

  @Override
  public boolean disconnect(long client) {
    return client == 3;
  }
}
