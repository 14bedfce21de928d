package io.qnbd.it.docs;

import io.qnbd.it.Repository;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;

/**
 * A page of the manual and the commands on it: the lines of its indented blocks and of fences
 * without a language, and what stands in backquotes in its tables, where that begins with a
 * program's name.
 *
 * <p>What no test can run says so with its reason, {@code <!-- not run: needs a cluster -->}: above
 * a block, or in the row of a table. A block below {@code <!-- guest: ... -->} is for a machine
 * with a kernel of its own, where GuestIT runs it.
 */
record Page(String name, List<String> lines) {
  private static final Pattern SPAN = Pattern.compile("`([^`]+)`");
  private static final String GUEST = "<!-- guest: ";
  private static final Pattern NOT_RUN = Pattern.compile("<!-- not run: \\S.* -->");

  /** Words in capitals stand for what the reader has; these the tests have, too. */
  private static final Pattern PLACE_HOLDER =
      Pattern.compile("(?<![A-Za-z0-9_$])(?!DIR\\b|KEY\\b|PID\\b|HUP\\b)[A-Z]{3,}(?![A-Za-z0-9_])");

  /** What a command begins with. Other words in backquotes are options, files and messages. */
  private static final Set<String> PROGRAMS =
      Set.of(
          "./qnbd",
          "./verify",
          "docker",
          "docker-compose",
          "docker/build",
          "docs/copy-dirty.sh",
          "fio",
          "gpg",
          "kill",
          "kubectl",
          "mkdir",
          "modprobe",
          "nbd-client",
          "nbdcopy",
          "nbdinfo",
          "printf",
          "psktool",
          "qemu-img",
          "qemu-system-x86_64",
          "qnbd",
          "systemd-socket-activate");

  /** One command line of a page; {@code marked} says that no test can run it. */
  record Command(String page, int line, String text, boolean marked) {
    @Override
    public String toString() {
      return "%s:%d: %s".formatted(page, line, text);
    }
  }

  static Page read(String name) throws IOException {
    return new Page(name, Files.readAllLines(Repository.root().resolve(name)));
  }

  /** What the page tells its reader to run, from top to bottom. */
  List<Command> commands() {
    List<Command> commands = new ArrayList<>();
    boolean commandFence = false;
    boolean otherFence = false;
    boolean marked = false;
    boolean guest = false;
    for (int index = 0; index < lines.size(); index++) {
      String line = lines.get(index);
      if (line.startsWith("```")) {
        marked = marked && !commandFence;
        otherFence = !otherFence && !commandFence && line.length() > 3;
        commandFence = !commandFence && line.length() == 3;
      } else if (commandFence || (!otherFence && line.startsWith("    "))) {
        index = addCommand(guest ? new ArrayList<>() : commands, index, marked);
      } else if (!otherFence && !line.isBlank()) {
        marked = NOT_RUN.matcher(line).find();
        guest = line.startsWith(GUEST);
        if (line.startsWith("|")) {
          addSpans(commands, index, marked);
          marked = false;
        }
      }
    }
    return commands;
  }

  /** Adds the command that begins on the line, if one does, and returns the line it ends on. */
  private int addCommand(List<Command> commands, int first, boolean marked) {
    int last = first;
    StringBuilder text = new StringBuilder(lines.get(first).strip());
    while (text.toString().endsWith("\\")) {
      last++;
      text.setLength(text.length() - 1);
      text.append(lines.get(last).strip());
    }
    String command = text.toString().startsWith("$ ") ? text.substring(2) : text.toString();
    boolean begins = text.toString().startsWith("$ ") || isCommand(command);
    if (begins || (marked && !command.isEmpty())) {
      commands.add(new Command(name, first + 1, command, marked));
    }
    return last;
  }

  private void addSpans(List<Command> commands, int index, boolean marked) {
    String before = "";
    for (String span : spans(lines.get(index))) {
      String text = span.startsWith("... ") ? begin(before) + span.substring(3) : span;
      text = text.endsWith(" ...") ? text.replace("...", lastWord(before)) : text;
      if (isCommand(text)) {
        commands.add(new Command(name, index + 1, text, marked));
        before = text;
      }
    }
  }

  private static boolean isCommand(String text) {
    int blank = text.indexOf(' ');
    String program = blank < 0 ? text : text.substring(0, blank);
    return PROGRAMS.contains(program)
        && (blank >= 0 || program.contains("/"))
        && !PLACE_HOLDER.matcher(text).find();
  }

  /** What three dots at the begin repeat of the command before: up to the word that differs. */
  private static String begin(String before) {
    String[] words = before.split(" ", -1);
    int kept = words.length > 2 && words[1].equals("ctl") ? 3 : Math.min(words.length, 2);
    return String.join(" ", List.of(words).subList(0, kept));
  }

  private static String lastWord(String before) {
    return before.substring(before.lastIndexOf(' ') + 1);
  }

  /** The rows of the table whose first heading this is, each cell without its blanks. */
  List<List<String>> table(String heading) {
    List<List<String>> rows = new ArrayList<>();
    boolean inside = false;
    for (String line : lines) {
      if (!line.startsWith("|")) {
        inside = false;
      } else if (line.startsWith("| " + heading + " |")) {
        inside = true;
      } else if (inside && !line.startsWith("| ---")) {
        rows.add(
            List.of(line.substring(1, line.length() - 1).split("\\|", -1)).stream()
                .map(String::strip)
                .toList());
      }
    }
    return rows;
  }

  /** What stands in backquotes. */
  static List<String> spans(String text) {
    return SPAN.matcher(text).results().map(found -> found.group(1)).toList();
  }

  /** The page's text from the first line that begins with this to the next blank one. */
  String from(String begin) {
    StringBuilder text = new StringBuilder();
    for (String line : lines) {
      boolean inside = text.length() > 0 && !line.isBlank();
      if (inside || (text.length() == 0 && line.strip().startsWith(begin))) {
        text.append(line.strip()).append('\n');
      } else if (text.length() > 0) {
        break;
      }
    }
    return text.toString();
  }
}
