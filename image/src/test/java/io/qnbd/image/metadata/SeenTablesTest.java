package io.qnbd.image.metadata;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class SeenTablesTest {
  @Test
  void eachTableIsNewOnce() {
    Seeds.run(
        "eachTableIsNewOnce",
        20,
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          SeenTables seen = new SeenTables();
          Set<Long> model = new HashSet<>();
          int clusterBits = 9 + random.below(13);
          int clusters = 1 + random.below(20_000);
          for (int i = 0; i < 20_000; i++) {
            long offset = (1L + random.below(clusters)) << clusterBits;
            assertEquals(model.add(offset), seen.add(offset));
          }
        });
  }
}
