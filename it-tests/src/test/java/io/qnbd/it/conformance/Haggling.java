package io.qnbd.it.conformance;

import io.qnbd.it.conformance.OptionReply.Context;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import javax.net.ssl.SSLEngine;

/**
 * A connection in the handshake. It keeps account of what was agreed on by the protocol's rules, so
 * that the session which follows expects just that.
 *
 * <p>Owner: the thread of the case.
 */
final class Haggling implements AutoCloseable {
  private final Endpoint server;
  private final Peer peer;
  private final int clientFlags;
  private Mode mode = Mode.SIMPLE;
  private String contextsOf = "";
  private Map<Integer, String> contexts = new TreeMap<>();

  private Haggling(Endpoint server, Peer peer, int clientFlags) {
    this.server = server;
    this.peer = peer;
    this.clientFlags = clientFlags;
  }

  /** Connects, takes the greeting and answers with these flags. */
  static Haggling open(Endpoint server, int clientFlags) throws IOException {
    Peer peer = Peer.connect(server.port());
    try {
      greeting(peer);
      peer.send(new Bytes().u32(clientFlags).array());
      return new Haggling(server, peer, clientFlags);
    } catch (Throwable e) {
      peer.close();
      throw e;
    }
  }

  /** Connects as every modern client does. */
  static Haggling open(Endpoint server) throws IOException {
    return open(server, Nbd.FIXED_NEWSTYLE | Nbd.NO_ZEROES);
  }

  /** Takes the server's first words and returns its flags. */
  static int greeting(Peer peer) throws IOException {
    ByteBuffer greeting = peer.take(18);
    long first = greeting.getLong();
    Check.that(first == Nbd.GREETING_MAGIC, "the greeting begins with 0x%x", first);
    long second = greeting.getLong();
    Check.that(second == Nbd.OPTION_MAGIC, "the greeting goes on with 0x%x", second);
    return greeting.getShort() & 0xffff;
  }

  /** An option as it is sent. */
  static byte[] option(int option, byte... data) {
    Bytes out = new Bytes().u64(Nbd.OPTION_MAGIC).u32(option).u32(data.length);
    return out.raw(data).array();
  }

  /** The data of INFO and GO. */
  static byte[] details(String name, int... infos) {
    Bytes data = new Bytes().string(name).u16(infos.length);
    for (int info : infos) {
      data.u16(info);
    }
    return data.array();
  }

  /** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
  static byte[] queries(String name, String... queries) {
    Bytes data = new Bytes().string(name).u32(queries.length);
    for (String query : queries) {
      data.string(query);
    }
    return data.array();
  }

  Peer peer() {
    return peer;
  }

  /** Sends an option and waits for the whole answer. */
  Answer ask(int option, byte... data) throws IOException {
    peer.send(option(option, data));
    return answer(option);
  }

  /** Waits for the whole answer to an option that was sent. */
  Answer answer(int option) throws IOException {
    List<OptionReply> replies = new ArrayList<>();
    do {
      replies.add(OptionReply.read(peer, option));
    } while (!replies.getLast().last());
    Answer answer = new Answer(option, replies);
    boolean mayRequireTls =
        !peer.encrypted()
            && switch (server.tls()) {
              case OFF -> false;
              case OPTIONAL -> option == Nbd.OPT_INFO || option == Nbd.OPT_GO;
              case REQUIRED -> true;
            };
    Check.that(answer.end() != Nbd.ERR_TLS_REQD || mayRequireTls, "%s", answer);
    account(answer);
    return answer;
  }

  private void account(Answer answer) {
    if (answer.option() == Nbd.OPT_STRUCTURED_REPLY && answer.acknowledged()) {
      mode = Mode.STRUCTURED;
    } else if (answer.option() == Nbd.OPT_EXTENDED_HEADERS && answer.acknowledged()) {
      mode = Mode.EXTENDED;
    } else if (answer.option() == Nbd.OPT_SET_META_CONTEXT) {
      contexts = new TreeMap<>(); // also when it failed
    }
  }

  Answer info(String name, int... infos) throws IOException {
    return ask(Nbd.OPT_INFO, details(name, infos));
  }

  Answer listContexts(String name, String... queries) throws IOException {
    return ask(Nbd.OPT_LIST_META_CONTEXT, queries(name, queries));
  }

  Answer setContexts(String name, String... queries) throws IOException {
    Answer answer = ask(Nbd.OPT_SET_META_CONTEXT, queries(name, queries));
    if (answer.acknowledged()) {
      contextsOf = name;
      for (Context context : answer.contexts()) {
        contexts.put(context.id(), context.name());
      }
    }
    return answer;
  }

  /** Asks for the mode, which must be granted. */
  Haggling agree(Mode wanted) throws IOException {
    switch (wanted) {
      case SIMPLE -> {}
      case STRUCTURED -> {
        var _ = ask(Nbd.OPT_STRUCTURED_REPLY).mustAcknowledge();
      }
      case EXTENDED -> {
        var _ = ask(Nbd.OPT_EXTENDED_HEADERS).mustAcknowledge();
      }
    }
    return this;
  }

  /** Chooses the export with GO, which must succeed. */
  Session go(String name, int... infos) throws IOException {
    return begin(name, ask(Nbd.OPT_GO, details(name, infos)).mustAcknowledge());
  }

  private Session begin(String name, Answer answer) {
    ByteBuffer export = answer.infos().getOrDefault(Nbd.INFO_EXPORT, ByteBuffer.allocate(10));
    Session.Export chosen = new Session.Export(export.getLong(), export.getShort() & 0xffff);
    ByteBuffer sizes = answer.infos().get(Nbd.INFO_BLOCK_SIZE);
    long most = sizes == null ? Nbd.PAYLOAD_BYTES_DEFAULT : sizes.getInt(8) & 0xffffffffL;
    return new Session(peer, mode, chosen, most, contextsFor(name));
  }

  /** Chooses the export with EXPORT_NAME, which must succeed. */
  Session exportName(String name) throws IOException {
    peer.send(option(Nbd.OPT_EXPORT_NAME, new Bytes().text(name).array()));
    ByteBuffer reply = peer.take(10);
    Session.Export chosen = new Session.Export(reply.getLong(), reply.getShort() & 0xffff);
    Check.that(chosen.has(Nbd.HAS_FLAGS), "transmission flags without bit 0");
    if ((clientFlags & Nbd.NO_ZEROES) == 0) {
      for (byte padding : peer.read(124)) {
        Check.that(padding == 0, "the padding holds 0x%x", padding);
      }
    }
    return new Session(peer, mode, chosen, Nbd.PAYLOAD_BYTES_DEFAULT, contextsFor(name));
  }

  private Map<Integer, String> contextsFor(String name) {
    return name.equals(contextsOf) ? contexts : Map.of();
  }

  /** Goes on in TLS, which must be granted; what was agreed on before is void. */
  Haggling startTls(SSLEngine engine) throws IOException {
    var _ = ask(Nbd.OPT_STARTTLS).mustAcknowledge();
    peer.startTls(engine);
    mode = Mode.SIMPLE;
    contexts = new TreeMap<>();
    return this;
  }

  /** Ends the handshake as a client should; the server must acknowledge and close. */
  void leave() throws IOException {
    var _ = ask(Nbd.OPT_ABORT).mustAcknowledge();
    peer.mustEnd();
  }

  @Override
  public void close() throws IOException {
    peer.close();
  }
}
