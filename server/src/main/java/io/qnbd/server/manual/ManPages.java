package io.qnbd.server.manual;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import picocli.CommandLine;
import picocli.CommandLine.Help;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;

/**
 * Manual pages in roff with the macros of man(7), one for each command: what {@code --help} says.
 */
public final class ManPages {
  private static final Pattern HEADING = Pattern.compile("%n|:");

  private ManPages() {}

  /** The pages by their names, {@code qnbd-serve} for one, the root's first. */
  public static Map<String, String> of(CommandLine root, String version) {
    Map<String, String> pages = new LinkedHashMap<>();
    addTo(pages, root, version);
    return pages;
  }

  private static void addTo(Map<String, String> pages, CommandLine command, String version) {
    pages.put(name(command), page(command, version));
    command.getSubcommands().values().stream()
        .filter(sub -> !sub.getCommandSpec().usageMessage().hidden())
        .forEach(sub -> addTo(pages, sub, version));
  }

  private static String name(CommandLine command) {
    return command.getCommandSpec().qualifiedName("-");
  }

  private static String page(CommandLine command, String version) {
    CommandSpec spec = command.getCommandSpec();
    StringBuilder page = new StringBuilder();
    page.append(
        ".TH %s 1 \"\" \"qnbd %s\" \"qnbd\"\n"
            .formatted(name(command).toUpperCase(Locale.ROOT), version));
    // No hyphenation, no adjustment: names and sentences only.
    page.append(".nh\n.ad l\n");
    section(page, "NAME");
    page.append(text(name(command))).append(" \\- ").append(text(summary(spec))).append('\n');
    section(page, "SYNOPSIS");
    page.append(text(new Help(spec, Help.defaultColorScheme(Help.Ansi.OFF)).synopsis(0).strip()));
    page.append('\n');
    section(page, "DESCRIPTION");
    paragraphs(page, spec.usageMessage().description());
    arguments(page, spec);
    options(page, spec);
    commands(page, command);
    exitCodes(page, spec);
    examples(page, spec);
    seeAlso(page, command);
    return page.toString();
  }

  private static String summary(CommandSpec spec) {
    String[] header = spec.usageMessage().header();
    String text = header.length > 0 ? header[0] : "serve, make and check disk images over NBD";
    return text.endsWith(".") ? text.substring(0, text.length() - 1) : text;
  }

  private static void section(StringBuilder page, String title) {
    page.append(".SH ").append(title).append('\n');
  }

  private static void paragraphs(StringBuilder page, String[] lines) {
    for (String line : lines) {
      page.append(".PP\n").append(text(line.formatted())).append('\n');
    }
  }

  private static void entry(StringBuilder page, String term, String[] description) {
    page.append(".TP\n.B ").append(text(term)).append('\n');
    for (String line : description) {
      page.append(text(line.formatted())).append('\n');
    }
  }

  private static void arguments(StringBuilder page, CommandSpec spec) {
    List<PositionalParamSpec> shown =
        spec.positionalParameters().stream().filter(argument -> !argument.hidden()).toList();
    if (!shown.isEmpty()) {
      section(page, "ARGUMENTS");
      shown.forEach(argument -> entry(page, argument.paramLabel(), argument.description()));
    }
  }

  private static void options(StringBuilder page, CommandSpec spec) {
    section(page, "OPTIONS");
    for (OptionSpec option : spec.options()) {
      if (!option.hidden()) {
        String names = String.join(", ", option.names());
        boolean valued = option.arity().max() > 0;
        entry(page, valued ? names + " " + option.paramLabel() : names, described(option));
      }
    }
  }

  /** The description with picocli's variables filled in. */
  private static String[] described(OptionSpec option) {
    return Stream.of(option.description())
        .map(line -> line.replace("${DEFAULT-VALUE}", String.valueOf(option.defaultValue())))
        .toArray(String[]::new);
  }

  private static void commands(StringBuilder page, CommandLine command) {
    List<CommandLine> shown =
        command.getSubcommands().values().stream()
            .filter(sub -> !sub.getCommandSpec().usageMessage().hidden())
            .toList();
    if (!shown.isEmpty()) {
      section(page, "COMMANDS");
      for (CommandLine sub : shown) {
        String summary = summary(sub.getCommandSpec()) + ": see " + name(sub) + "(1).";
        entry(page, sub.getCommandName(), new String[] {summary});
      }
    }
  }

  private static void exitCodes(StringBuilder page, CommandSpec spec) {
    Map<String, String> codes = spec.usageMessage().exitCodeList();
    if (!codes.isEmpty()) {
      section(page, "EXIT STATUS");
      codes.forEach((code, meaning) -> entry(page, code.strip(), new String[] {meaning}));
    }
  }

  private static void examples(StringBuilder page, CommandSpec spec) {
    String[] footer = spec.usageMessage().footer();
    if (footer.length > 0) {
      String heading = String.valueOf(spec.usageMessage().footerHeading());
      section(page, HEADING.matcher(heading).replaceAll("").strip().toUpperCase(Locale.ROOT));
      page.append(".nf\n");
      Stream.of(footer).forEach(line -> page.append(text(line.formatted())).append('\n'));
      page.append(".fi\n");
    }
  }

  private static void seeAlso(StringBuilder page, CommandLine command) {
    List<String> others = new ArrayList<>();
    CommandLine parent = command.getParent();
    if (parent != null) {
      others.add(name(parent));
    }
    others.addAll(List.of("qemu-img", "nbdinfo"));
    section(page, "SEE ALSO");
    page.append(
            others.stream()
                .map(other -> ".BR " + text(other) + " (1)")
                .collect(Collectors.joining(",\n")))
        .append(",\n.BR nbd-client (8)\n");
  }

  /** Escapes what roff would read as its own: backslashes, hyphens, dots and quotes in front. */
  static String text(String line) {
    String escaped = line.replace("\\", "\\e").replace("-", "\\-").replace("\n", " ");
    return escaped.startsWith(".") || escaped.startsWith("'") ? "\\&" + escaped : escaped;
  }
}
