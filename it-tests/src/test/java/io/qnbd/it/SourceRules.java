package io.qnbd.it;

import com.sun.source.tree.AnnotationTree;
import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.ImportTree;
import com.sun.source.tree.LineMap;
import com.sun.source.tree.MemberSelectTree;
import com.sun.source.tree.MethodTree;
import com.sun.source.tree.Tree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.SourcePositions;
import com.sun.source.util.TreeScanner;
import com.sun.source.util.Trees;
import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import javax.tools.JavaCompiler;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;
import org.jspecify.annotations.Nullable;

/**
 * What a Java source of ours must not contain, formatting aside. Names and lengths are read from
 * javac's own syntax tree, so a rule's words inside a string or a comment break nothing.
 */
final class SourceRules {
  /** A method fits on a screen; 98 methods in 100 of the source trees that we measured do. */
  static final int METHOD_LINES_MAX = 70;

  /** The one package whose business is writing to standard output. */
  private static final String COMMAND_PACKAGE = "io.qnbd.server";

  /** Spelled in two halves, so that this file keeps its own rule. */
  private static final List<String> LEFTOVERS = List.of("TO" + "DO", "FIX" + "ME");

  private SourceRules() {}

  /** The violations in {@code text}, each as {@code line: what is wrong}, in order of rule. */
  static List<String> violations(String text) throws IOException {
    List<String> found = new ArrayList<>();
    checkLines(text, found);
    checkTree(text, found);
    return found;
  }

  private static void checkLines(String text, List<String> found) {
    List<String> lines = text.lines().toList();
    for (int index = 0; index < lines.size(); index++) {
      String line = lines.get(index);
      String place = (index + 1) + ": ";
      if (line.indexOf('\t') >= 0) {
        found.add(place + "a tab");
      }
      if (line.endsWith(" ") || line.endsWith("\r")) {
        found.add(place + "trailing blanks");
      }
      for (String leftover : LEFTOVERS) {
        if (line.contains(leftover)) {
          found.add(place + "a leftover " + leftover);
        }
      }
    }
  }

  private static void checkTree(String text, List<String> found) throws IOException {
    JavaCompiler compiler =
        Objects.requireNonNull(ToolProvider.getSystemJavaCompiler(), "the tests run on a JDK");
    JavacTask task =
        (JavacTask)
            compiler.getTask(null, null, _ -> {}, List.of(), null, List.of(new Source(text)));
    SourcePositions positions = Trees.instance(task).getSourcePositions();
    for (CompilationUnitTree unit : task.parse()) {
      new Scanner(unit, positions, found).scan(unit, null);
    }
  }

  private static final class Scanner extends TreeScanner<@Nullable Void, @Nullable Void> {
    private final CompilationUnitTree unit;
    private final SourcePositions positions;
    private final List<String> found;
    private final boolean mayPrint;

    Scanner(CompilationUnitTree unit, SourcePositions positions, List<String> found) {
      this.unit = unit;
      this.positions = positions;
      this.found = found;
      this.mayPrint =
          unit.getPackageName() != null && unit.getPackageName().toString().equals(COMMAND_PACKAGE);
    }

    @Override
    public @Nullable Void visitMethod(MethodTree method, @Nullable Void none) {
      long first = line(positions.getStartPosition(unit, method));
      long last = line(positions.getEndPosition(unit, method));
      long lines = last - first + 1;
      if (lines > METHOD_LINES_MAX) {
        report(
            method,
            "method %s has %d lines, the most is %d"
                .formatted(method.getName(), lines, METHOD_LINES_MAX));
      }
      return super.visitMethod(method, null);
    }

    @Override
    public @Nullable Void visitMemberSelect(MemberSelectTree select, @Nullable Void none) {
      if (select.toString().equals("System.out") && !mayPrint) {
        report(select, "System.out outside " + COMMAND_PACKAGE);
      }
      return super.visitMemberSelect(select, null);
    }

    @Override
    public @Nullable Void visitAnnotation(AnnotationTree annotation, @Nullable Void none) {
      String name = annotation.getAnnotationType().toString();
      if (name.substring(name.lastIndexOf('.') + 1).startsWith("Disabled")) {
        report(annotation, "a disabled test");
      }
      return super.visitAnnotation(annotation, null);
    }

    @Override
    public @Nullable Void visitImport(ImportTree tree, @Nullable Void none) {
      if (tree.isModule()) {
        report(tree, "import module hides what a class depends on");
      }
      return super.visitImport(tree, null);
    }

    private void report(Tree tree, String what) {
      found.add(line(positions.getStartPosition(unit, tree)) + ": " + what);
    }

    private long line(long position) {
      LineMap lines = unit.getLineMap();
      return lines.getLineNumber(position);
    }
  }

  private static final class Source extends SimpleJavaFileObject {
    private final String text;

    Source(String text) {
      super(URI.create("string:///Source.java"), Kind.SOURCE);
      this.text = text;
    }

    @Override
    public CharSequence getCharContent(boolean ignoreEncodingErrors) {
      return text;
    }
  }
}
