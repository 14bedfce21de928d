package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.googlejavaformat.java.Formatter;
import com.google.googlejavaformat.java.FormatterException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/**
 * Every Java source of the repository is formatted as google-java-format does it and keeps {@link
 * SourceRules}. {@code -Dtidy.fix=true} rewrites the formatting.
 */
final class TidyTest {

  @Test
  void everySourceIsFormatted() throws Exception {
    boolean fix = Boolean.getBoolean("tidy.fix");
    Formatter formatter = new Formatter();
    List<String> unformatted = new ArrayList<>();
    for (Path source : Repository.javaSources()) {
      String text = Files.readString(source);
      String formatted = formatted(formatter, source, text);
      if (formatted.equals(text)) {
        continue;
      }
      if (fix) {
        Files.writeString(source, formatted);
      } else {
        unformatted.add(Repository.root().relativize(source).toString());
      }
    }
    if (!unformatted.isEmpty()) {
      fail(
          "not formatted; run mvn -q -pl it-tests -am test -Dtest=TidyTest -Dtidy.fix=true"
              + " -Dsurefire.failIfNoSpecifiedTests=false to repair:\n"
              + String.join("\n", unformatted));
    }
  }

  @Test
  void everySourceKeepsTheRules() throws IOException {
    List<String> found = new ArrayList<>();
    for (Path source : Repository.javaSources()) {
      for (String violation : SourceRules.violations(Files.readString(source))) {
        found.add(Repository.root().relativize(source) + ":" + violation);
      }
    }
    if (!found.isEmpty()) {
      fail(String.join("\n", found));
    }
  }

  @Test
  void eachRuleBites() throws IOException {
    assertEquals(List.of("1: a tab"), SourceRules.violations("class\tA {}\n"));
    assertEquals(List.of("1: trailing blanks"), SourceRules.violations("class A {} \n"));
    assertEquals(
        List.of("2: a leftover FIX" + "ME"),
        SourceRules.violations("class A {\n  // FIX" + "ME\n}\n"));
    assertEquals(
        List.of("1: System.out outside io.qnbd.server"),
        SourceRules.violations("class A { void a() { System.out.println(); } }\n"));
    assertEquals(
        List.of(),
        SourceRules.violations(
            "package io.qnbd.server; class A { void a() { System.out.println(); } }\n"));
    assertEquals(
        List.of(), SourceRules.violations("class A { String a = \"System.out @Disabled\"; }\n"));
    assertEquals(
        List.of("1: a disabled test"), SourceRules.violations("class A { @Disabled void a() {} }"));
    assertEquals(
        List.of("1: import module hides what a class depends on"),
        SourceRules.violations("import module java.base;\nclass A {}\n"));
  }

  @Test
  void aMethodOfSeventyLinesPassesAndOneMoreFails() throws IOException {
    assertEquals(List.of(), SourceRules.violations(methodOf(SourceRules.METHOD_LINES_MAX)));
    assertEquals(
        List.of("2: method a has 71 lines, the most is 70"),
        SourceRules.violations(methodOf(SourceRules.METHOD_LINES_MAX + 1)));
  }

  private static String methodOf(int lines) {
    return "class A {\n  void a() {\n" + "    ;\n".repeat(lines - 2) + "  }\n}\n";
  }

  private static String formatted(Formatter formatter, Path source, String text) {
    try {
      return formatter.formatSourceAndFixImports(text);
    } catch (FormatterException e) {
      throw new AssertionError(source + " cannot be parsed", e);
    }
  }
}
