package io.qnbd.it.conformance;

import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.io.IOException;
import java.time.Duration;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.TestReporter;

/** Every case of docs/conformance.md against real servers. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
final class ConformanceIT {
  /** Only a case that hangs takes longer, also on a machine that is ten times slower. */
  private static final Duration LONGEST = Duration.ofMinutes(3);

  private final Lazy<Bench> bench = new Lazy<>(Bench::start);

  @BeforeAll
  void start() {
    var _ = bench.get();
  }

  @AfterAll
  void stop(TestReporter reporter) throws IOException {
    Bench made = bench.made();
    if (made != null) {
      made.reports().forEach(reporter::publishEntry);
      made.close();
    }
  }

  @TestFactory
  Stream<DynamicTest> cases() {
    return CaseList.all().cases().stream().map(each -> dynamicTest(each.name(), () -> run(each)));
  }

  private void run(CaseList.Case each) {
    Bench servers = bench.get();
    try {
      assertTimeoutPreemptively(LONGEST, () -> each.body().run(servers));
    } catch (Throwable e) {
      throw new AssertionError(each.name() + ": " + e.getMessage(), e);
    }
  }
}
