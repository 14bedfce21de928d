import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.classfile.ClassFile;
import java.lang.classfile.ClassFile.ClassHierarchyResolverOption;
import java.lang.classfile.ClassFile.ConstantPoolSharingOption;
import java.lang.classfile.ClassFile.StackMapsOption;
import java.lang.classfile.ClassFileVersion;
import java.lang.classfile.ClassHierarchyResolver;
import java.lang.classfile.ClassModel;
import java.lang.classfile.ClassTransform;
import java.lang.classfile.CodeTransform;
import java.lang.constant.ClassDesc;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collections;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.jar.JarOutputStream;
import java.util.jar.Manifest;

/**
 * Writes a library's class files in a newer version of the format: {@code java NewerClasses.java
 * LIBRARY.jar NEW.jar}, as a step of the build.
 *
 * <p>Java keeps no class in its quick-start file (AOT cache) whose version is below 50, the first
 * with stack maps, but loads and verifies it anew at each start. picocli is compiled to 49, for
 * Java 5. Its code stays what it is; stack maps are added, and every class is verified here.
 *
 * <p>The same input gives the same bytes, which are not written when they are there already: a
 * newer file would outdate what was made of the old one.
 */
final class NewerClasses {
  private static final int FIRST_WITH_STACK_MAPS = ClassFile.JAVA_6_VERSION;
  private static final int NEW_VERSION = ClassFile.JAVA_25_VERSION;

  private final JarFile library;
  private final ClassFile format;

  private NewerClasses(JarFile library) {
    this.library = library;
    ClassHierarchyResolver own = ClassHierarchyResolver.ofResourceParsing(this::open);
    this.format =
        ClassFile.of(
            StackMapsOption.GENERATE_STACK_MAPS,
            ConstantPoolSharingOption.NEW_POOL,
            ClassHierarchyResolverOption.of(own.orElse(ClassHierarchyResolver.defaultResolver())));
  }

  public static void main(String[] arguments) throws IOException {
    Path target = Path.of(arguments[1]);
    byte[] jar;
    try (JarFile library = new JarFile(arguments[0])) {
      jar = new NewerClasses(library).rewrite();
    }
    if (!Files.exists(target) || !Arrays.equals(Files.readAllBytes(target), jar)) {
      Files.createDirectories(target.getParent());
      Files.write(target, jar);
    }
  }

  private byte[] rewrite() throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (JarOutputStream out = new JarOutputStream(bytes)) {
      for (JarEntry entry : Collections.list(library.entries())) {
        JarEntry written = new JarEntry(entry.getName());
        written.setTimeLocal(entry.getTimeLocal());
        out.putNextEntry(written);
        try (InputStream in = library.getInputStream(entry)) {
          out.write(rewrite(entry.getName(), in.readAllBytes()));
        }
        out.closeEntry();
      }
    }
    return bytes.toByteArray();
  }

  private byte[] rewrite(String name, byte[] content) throws IOException {
    if (name.equals(JarFile.MANIFEST_NAME)) {
      return manifest(content);
    }
    if (!name.endsWith(".class")) {
      return content;
    }
    ClassModel old = format.parse(content);
    if (old.majorVersion() >= FIRST_WITH_STACK_MAPS) {
      return content;
    }
    byte[] rewritten =
        format.transformClass(
            old,
            ClassTransform.transformingMethodBodies(CodeTransform.ACCEPT_ALL)
                .andThen((builder, element) -> {
                  if (element instanceof ClassFileVersion) {
                    builder.withVersion(NEW_VERSION, 0);
                  } else {
                    builder.with(element);
                  }
                }));
    for (VerifyError error : format.verify(rewritten)) {
      throw new IOException(library.getName() + ": " + name, error);
    }
    return rewritten;
  }

  /** Says that the files are not the library's own, as its licence asks for. */
  private static byte[] manifest(byte[] content) throws IOException {
    Manifest manifest = new Manifest(new ByteArrayInputStream(content));
    manifest
        .getMainAttributes()
        .putValue("Changed-By", "qnbd: class files of a newer version, with stack maps");
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    manifest.write(bytes);
    return bytes.toByteArray();
  }

  /** The class file of one of the library's own classes, or null. */
  private InputStream open(ClassDesc name) {
    String descriptor = name.descriptorString();
    JarEntry entry =
        library.getJarEntry(descriptor.substring(1, descriptor.length() - 1) + ".class");
    try {
      return entry == null ? null : library.getInputStream(entry);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
