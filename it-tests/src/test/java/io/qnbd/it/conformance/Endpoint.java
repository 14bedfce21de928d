package io.qnbd.it.conformance;

import java.io.IOException;

/**
 * Where a server listens.
 *
 * @param tls the mode that it was started in
 */
record Endpoint(int port, Tls tls) {
  /** NOTLS, SELECTIVETLS and FORCEDTLS of the protocol. */
  enum Tls {
    OFF,
    OPTIONAL,
    REQUIRED
  }

  /** What a case says in a handshake. */
  interface Talk {
    void with(Haggling haggling) throws IOException;
  }

  /** What a case asks for in a session. */
  interface Work {
    void with(Session session) throws IOException;
  }

  /** A handshake that must still be in step when the case is done with it. */
  void haggle(Talk talk) throws IOException {
    try (Haggling haggling = Haggling.open(this)) {
      talk.with(haggling);
      haggling.leave();
    }
  }

  /** A handshake whose end is the case's own business. */
  void haggleToTheEnd(Talk talk) throws IOException {
    try (Haggling haggling = Haggling.open(this)) {
      talk.with(haggling);
    }
  }

  /** A session that must still be in step when the case is done with it. */
  void serve(Mode mode, String export, Work work) throws IOException {
    try (Session session = open(mode, export)) {
      work.with(session);
      session.mustBeInStep();
      session.leave();
    }
  }

  /** Like {@link #serve} with metadata contexts, all of which must be there. */
  void serveWith(Mode mode, String export, Work work, String... contexts) throws IOException {
    try (Haggling haggling = Haggling.open(this)) {
      Answer answer = haggling.agree(mode).setContexts(export, contexts).mustAcknowledge();
      Check.that(answer.contexts().size() == contexts.length, "selected %s", answer.contexts());
      Session session = haggling.go(export, Nbd.INFO_BLOCK_SIZE);
      work.with(session);
      session.mustBeInStep();
      session.leave();
    }
  }

  /** A session whose end is the case's own business; the caller closes it. */
  Session open(Mode mode, String export) throws IOException {
    Haggling haggling = Haggling.open(this);
    try {
      return haggling.agree(mode).go(export, Nbd.INFO_BLOCK_SIZE);
    } catch (Throwable e) {
      haggling.close();
      throw e;
    }
  }
}
