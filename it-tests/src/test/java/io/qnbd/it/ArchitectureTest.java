package io.qnbd.it;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;

import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.lang.ArchRule;
import com.tngtech.archunit.library.dependencies.SliceAssignment;
import com.tngtech.archunit.library.dependencies.SliceIdentifier;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Dependencies point one way: between the modules, and between the layers of the engine. */
final class ArchitectureTest {
  /**
   * The engine's layers, the lowest first; a layer knows those before it only. Layers in one entry
   * are side by side and don't know each other.
   */
  private static final List<List<String>> LAYERS =
      List.of(
          List.of("io", "codec", "crypt", "format"),
          List.of("metadata"),
          List.of("refcount"),
          List.of("mapping"),
          List.of("snapshot", "bitmap"),
          List.of("disk"));

  private static final JavaClasses CLASSES =
      new ClassFileImporter()
          .importPaths(
              Stream.of("protocol", "image", "server")
                  .map(module -> Repository.root().resolve(Path.of(module, "target", "classes")))
                  .toList());

  @Test
  void theModulesWereCompiledAndRead() {
    for (String module : List.of("protocol", "image", "server")) {
      String name = "io.qnbd." + module;
      if (CLASSES.stream().noneMatch(type -> type.getPackageName().startsWith(name))) {
        throw new AssertionError("no class of " + name + " was read");
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"protocol", "image", "server"})
  void packagesOfAModuleFormNoCycle(String module) {
    check(slices().assignedFrom(new PackageOf("io.qnbd." + module)).should().beFreeOfCycles());
  }

  @Test
  void theEngineKnowsNoNetworkAndNoServer() {
    check(
        noClasses()
            .that()
            .resideInAPackage("io.qnbd.image..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("io.netty..", "io.qnbd.protocol..", "io.qnbd.server.."));
  }

  @Test
  void theProtocolKnowsNoImageAndNoServer() {
    check(
        noClasses()
            .that()
            .resideInAPackage("io.qnbd.protocol..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("io.qnbd.image..", "io.qnbd.server.."));
  }

  @Test
  void protocolValuesAndTheHandshakeKnowNoNetty() {
    check(
        noClasses()
            .that()
            .resideInAnyPackage("io.qnbd.protocol", "io.qnbd.protocol.handshake..")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("io.netty.."));
  }

  @Test
  void theServerUsesThePublicFaceOfTheEngineOnly() {
    check(
        noClasses()
            .that()
            .resideInAPackage("io.qnbd.server..")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("io.qnbd.image.*.."));
  }

  @ParameterizedTest
  @MethodSource("layers")
  void aLayerOfTheEngineKnowsOnlyThoseBelowIt(String layer) {
    int level = 0;
    while (!LAYERS.get(level).contains(layer)) {
      level++;
    }
    String[] others =
        LAYERS.subList(level, LAYERS.size()).stream()
            .flatMap(List::stream)
            .filter(other -> !other.equals(layer))
            .map(other -> "io.qnbd.image." + other + "..")
            .toArray(String[]::new);
    if (others.length == 0) {
      return; // the top
    }
    check(
        noClasses()
            .that()
            .resideInAPackage("io.qnbd.image." + layer + "..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage(others));
  }

  static Stream<String> layers() {
    return LAYERS.stream().flatMap(List::stream);
  }

  @Test
  void codecsAndFormatsAreBytesInValuesOut() {
    check(
        noClasses()
            .that()
            .resideInAnyPackage(
                "io.qnbd.image.codec..", "io.qnbd.image.crypt..", "io.qnbd.image.format..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("java.nio.file..", "java.nio.channels..", "java.net.."));
  }

  /** A package that is not there yet breaks no rule. */
  private static void check(ArchRule rule) {
    rule.allowEmptyShould(true).check(CLASSES);
  }

  /**
   * Each package is a slice. The door of the engine, DiskImages, is a slice of its own: it opens
   * what lies behind the values of its package, which lie behind those in turn.
   */
  private record PackageOf(String module) implements SliceAssignment {
    @Override
    public SliceIdentifier getIdentifierOf(JavaClass type) {
      if (!type.getPackageName().startsWith(module)) {
        return SliceIdentifier.ignore();
      }
      return type.getName().equals("io.qnbd.image.DiskImages")
          ? SliceIdentifier.of(type.getName())
          : SliceIdentifier.of(type.getPackageName());
    }

    @Override
    public String getDescription() {
      return "packages of " + module;
    }
  }
}
