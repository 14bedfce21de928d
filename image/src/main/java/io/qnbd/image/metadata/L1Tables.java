package io.qnbd.image.metadata;

import java.io.IOException;

/** Reads L1 tables, one after the other. */
@FunctionalInterface
public interface L1Tables {
  void forEach(Use use) throws IOException;

  /** What is done with an L1 table. */
  @FunctionalInterface
  interface Use {
    void with(long[] l1) throws IOException;
  }
}
