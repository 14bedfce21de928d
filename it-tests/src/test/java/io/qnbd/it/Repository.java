package io.qnbd.it;

import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;

/** Where the sources and the launcher are: the system property {@code qnbd.root}. */
public final class Repository {
  private Repository() {}

  /** The directory that holds the parent pom.xml and the launcher. */
  public static Path root() {
    String root = System.getProperty("qnbd.root");
    if (root == null) {
      throw new AssertionError("run through Maven, or set -Dqnbd.root to the repository's root");
    }
    return Path.of(root).toAbsolutePath();
  }

  /** Every Java source of the repository; what a build made is left out. */
  static List<Path> javaSources() throws IOException {
    List<Path> sources = new ArrayList<>();
    Files.walkFileTree(
        root(),
        new SimpleFileVisitor<>() {
          @Override
          public FileVisitResult preVisitDirectory(Path dir, BasicFileAttributes attributes) {
            String name = dir.getFileName().toString();
            boolean foreign = name.equals("target") || name.startsWith(".");
            return foreign && !dir.equals(root())
                ? FileVisitResult.SKIP_SUBTREE
                : FileVisitResult.CONTINUE;
          }

          @Override
          public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
            if (file.toString().endsWith(".java")) {
              sources.add(file);
            }
            return FileVisitResult.CONTINUE;
          }
        });
    sources.sort(null);
    return sources;
  }
}
