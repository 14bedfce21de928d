package io.qnbd.server.manual;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;

/**
 * Scripts that complete qnbd's command line. All three shells know the commands, the words that
 * follow a command, each option, and that everything else is a file.
 */
public enum Completion {
  BASH {
    @Override
    public String script(CommandLine root) {
      StringBuilder cases = new StringBuilder();
      StringBuilder paths = new StringBuilder();
      for (Level level : levels(root)) {
        if (!level.path().isEmpty()) {
          paths.append(paths.isEmpty() ? "" : "|").append("\"%s\"".formatted(level.path()));
        }
        cases.append(
            "    \"%s\") words=\"%s\" valued=\" %s \" ;;\n"
                .formatted(level.path(), level.words(), String.join(" ", level.valued())));
      }
      return """
      # Completion of qnbd's command line for bash.
      _qnbd() {
        local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} path= words= valued= word
        for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
          case "${path:+$path }$word" in
            %s) path="${path:+$path }$word" ;;
          esac
        done
        case $path in
      %s  esac
        COMPREPLY=()
        if [[ $valued != *" $previous "* ]]; then
          mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        fi
        if [[ -n $path && $current != -* ]]; then
          local files
          mapfile -t files < <(compgen -f -- "$current")
          COMPREPLY+=("${files[@]}")
        fi
      }
      complete -o filenames -F _qnbd qnbd
      """
          .formatted(paths, cases);
    }
  },

  ZSH {
    @Override
    public String script(CommandLine root) {
      StringBuilder cases = new StringBuilder();
      StringBuilder paths = new StringBuilder();
      for (Level level : levels(root)) {
        if (!level.path().isEmpty()) {
          paths.append(paths.isEmpty() ? "" : "|").append("\"%s\"".formatted(level.path()));
        }
        cases
            .append("    \"%s\")\n      valued=\" ".formatted(level.path()))
            .append(String.join(" ", level.valued()))
            .append(" \"\n      entries=(\n");
        level.entries().stream()
            .map(entry -> entry.word() + ":" + entry.summary().replace(":", "\\:"))
            .forEach(entry -> cases.append("        %s\n".formatted(quoted(entry))));
        cases.append("      )\n      ;;\n");
      }
      return """
      #compdef qnbd
      # Completion of qnbd's command line for zsh.
      _qnbd() {
        local path_so_far= word valued=
        local -a entries
        for word in "${(@)words[2,CURRENT-1]}"; do
          case "${path_so_far:+$path_so_far }$word" in
            %s) path_so_far="${path_so_far:+$path_so_far }$word" ;;
          esac
        done
        case $path_so_far in
      %s  esac
        if [[ $valued != *" ${words[CURRENT-1]} "* ]]; then
          _describe -o 'qnbd' entries
        fi
        if [[ -n $path_so_far && ${words[CURRENT]} != -* ]]; then
          _files
        fi
      }
      _qnbd "$@"
      """
          .formatted(paths, cases);
    }
  },

  FISH {
    @Override
    public String script(CommandLine root) {
      StringBuilder script = new StringBuilder("# Completion of qnbd's command line for fish.\n");
      for (Level level : levels(root)) {
        String condition =
            level.path().isEmpty()
                ? "__fish_use_subcommand"
                : "__fish_seen_subcommand_from "
                    + level.path().replace(" ", "; and __fish_seen_subcommand_from ");
        for (Entry entry : level.entries()) {
          String what =
              entry.word().startsWith("--")
                  ? "-l " + entry.word().substring(2)
                  : entry.word().startsWith("-")
                      ? "-s " + entry.word().substring(1)
                      : (level.path().isEmpty() ? "-f -a " : "-a ") + entry.word();
          script.append(
              "complete -c qnbd -n %s %s%s -d %s\n"
                  .formatted(
                      quoted(condition),
                      what,
                      level.valued().contains(entry.word()) ? " -r" : "",
                      quoted(entry.summary())));
        }
      }
      return script.toString();
    }
  };

  /** What to put where this shell looks for completions. */
  public abstract String script(CommandLine root);

  /** The shell that is called so. */
  public static Completion of(String shell) {
    return switch (shell) {
      case "bash" -> BASH;
      case "zsh" -> ZSH;
      case "fish" -> FISH;
      default ->
          throw new IllegalArgumentException(
              "there is no completion for '" + shell + "', only for bash, zsh and fish");
    };
  }

  /** The shell's name. */
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** A word that may come next, and the first sentence about it. */
  private record Entry(String word, String summary) {}

  /**
   * What may follow a command.
   *
   * @param path the command's words after {@code qnbd}, with blanks between
   * @param valued the options after which comes a value
   */
  private record Level(String path, List<Entry> entries, List<String> valued) {
    String words() {
      return entries.stream().map(Entry::word).collect(Collectors.joining(" "));
    }
  }

  private static List<Level> levels(CommandLine root) {
    List<Level> levels = new ArrayList<>();
    addTo(levels, root, "");
    return levels;
  }

  private static void addTo(List<Level> levels, CommandLine command, String path) {
    List<Entry> entries = new ArrayList<>();
    List<String> valued = new ArrayList<>();
    List<CommandLine> shown =
        command.getSubcommands().values().stream()
            .filter(sub -> !sub.getCommandSpec().usageMessage().hidden())
            .toList();
    for (CommandLine sub : shown) {
      entries.add(
          new Entry(sub.getCommandName(), first(sub.getCommandSpec().usageMessage().header())));
    }
    for (OptionSpec option : command.getCommandSpec().options()) {
      if (!option.hidden()) {
        for (String name : option.names()) {
          entries.add(new Entry(name, first(option.description())));
          if (option.arity().max() > 0) {
            valued.add(name);
          }
        }
      }
    }
    levels.add(new Level(path, entries, valued));
    for (CommandLine sub : shown) {
      String word = sub.getCommandName();
      addTo(levels, sub, path.isEmpty() ? word : path + " " + word);
    }
  }

  private static String first(String[] lines) {
    String text = lines.length == 0 ? "" : lines[0].formatted();
    int end = text.indexOf(". ");
    String sentence = end < 0 ? text : text.substring(0, end);
    return sentence.endsWith(".") ? sentence.substring(0, sentence.length() - 1) : sentence;
  }

  /** One word for any of the shells. */
  private static String quoted(String text) {
    return "'" + text.replace("'", "'\"'\"'") + "'";
  }
}
