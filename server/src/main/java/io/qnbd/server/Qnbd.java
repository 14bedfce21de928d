package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.Preallocation;
import io.qnbd.image.RepairScope;
import io.qnbd.protocol.handshake.TlsMode;
import io.qnbd.server.config.Choice;
import io.qnbd.server.config.TcpAddress;
import io.qnbd.server.log.LogService;
import io.qnbd.server.manual.Completion;
import io.qnbd.server.net.ListenAddress;
import java.io.IOException;
import java.io.InputStream;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.function.Function;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.ScopeType;
import picocli.CommandLine.TypeConversionException;
import picocli.CommandLine.UnmatchedArgumentException;

/** The command line's root: knows the commands, how a failure is told, and the exit codes. */
@Command(
    name = "qnbd",
    addMethodSubcommands = false,
    description = {
      "Serves qcow2 and raw disk images over NBD (network block device), so that a Linux kernel,"
          + " QEMU or any NBD client sees a disk; makes, describes, checks and snapshots such"
          + " images.",
    },
    descriptionHeading = "%n",
    optionListHeading = "%nOptions:%n",
    commandListHeading = "%nCommands ('qnbd COMMAND --help' explains each):%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failed; standard error says why",
      "2:check found damage",
      "3:check found leaked clusters only",
      "63:the format has no check",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd serve --create 10G disk.qcow2     make it if missing, serve it",
      "  qnbd create -f qcow2 disk.qcow2 10G    make an image",
      "  qnbd info disk.qcow2                   what is it?",
      "  qnbd check disk.qcow2                  is it in order?",
      "  qnbd snapshot create disk.qcow2 today  keep the disk as it is now",
      "  qnbd bitmap add disk.qcow2 today       record what changes from now on"
    })
public final class Qnbd implements Callable<Integer> {
  /** How the object behind each command is made, in the order of the help text. */
  private static final Map<String, Function<Terminal, Object>> COMMANDS = commands();

  /** These tell of all the commands, so they need them. */
  private static final Set<String> NEED_ALL = Set.of("completion", "man");

  private final Terminal terminal;

  @Option(
      names = "--verbose",
      scope = ScopeType.INHERIT,
      description = "Log what happens, not only what goes wrong, to standard error.")
  private boolean verbose;

  @Option(
      names = "--debug",
      scope = ScopeType.INHERIT,
      description = "Log everything, and print the trace of a failure.")
  private boolean debug;

  Qnbd(Terminal terminal) {
    this.terminal = terminal;
  }

  private static Map<String, Function<Terminal, Object>> commands() {
    Map<String, Function<Terminal, Object>> commands = new LinkedHashMap<>();
    commands.put("serve", ServeCommand::new);
    commands.put("create", CreateCommand::new);
    commands.put("info", InfoCommand::new);
    commands.put("check", CheckCommand::new);
    commands.put("bitmap", BitmapCommand::new);
    commands.put("map", MapCommand::new);
    commands.put("resize", ResizeCommand::new);
    commands.put("rebase", RebaseCommand::new);
    commands.put("amend", AmendCommand::new);
    commands.put("commit", CommitCommand::new);
    commands.put("compact", CompactCommand::new);
    commands.put("convert", ConvertCommand::new);
    commands.put("compare", CompareCommand::new);
    commands.put("measure", MeasureCommand::new);
    commands.put("bench", BenchCommand::new);
    commands.put("snapshot", SnapshotCommand::new);
    commands.put("ctl", CtlCommand::new);
    commands.put("completion", CompletionCommand::new);
    commands.put("man", ManCommand::new);
    return commands;
  }

  /**
   * The commands that the arguments may need. picocli examines a command's class when it is added,
   * which for all of them takes longer than everything else until a server is ready.
   */
  private static Set<String> needed(String[] arguments) {
    for (String argument : arguments) {
      if (!argument.startsWith("-")) {
        return COMMANDS.containsKey(argument) && !NEED_ALL.contains(argument)
            ? Set.of(argument)
            : COMMANDS.keySet();
      }
    }
    return COMMANDS.keySet();
  }

  private CommandLine commandLine(Set<String> names) {
    CommandLine commandLine = new CommandLine(this);
    COMMANDS.forEach((name, make) -> {
      if (names.contains(name)) {
        commandLine.addSubcommand(name, make.apply(terminal));
      }
    });
    commandLine
        .getCommandSpec()
        .addOption(
            OptionSpec.builder("-h", "--help")
                .usageHelp(true)
                .scopeType(ScopeType.INHERIT)
                .description("Show this text.")
                .build())
        .addOption(
            OptionSpec.builder("-V", "--version")
                .versionHelp(true)
                .description("Show the version.")
                .build())
        .versionProvider(() -> new String[] {"qnbd " + version()});
    return commandLine
        .setOut(terminal.out())
        .setErr(terminal.err())
        .registerConverter(ByteCount.class, orSentence(ByteCount::parse))
        .registerConverter(ListenAddress.Tcp.class, orSentence(TcpAddress::parse))
        .registerConverter(ExportArgument.class, orSentence(ExportArgument::parse))
        .registerConverter(ImageFormat.class, orSentence(Choice::format))
        .registerConverter(CacheMode.class, orSentence(Choice::cacheMode))
        .registerConverter(Preallocation.class, orSentence(Choice::preallocation))
        .registerConverter(RepairScope.class, orSentence(Choice::repairScope))
        .registerConverter(BackingPolicy.class, orSentence(Choice::backingPolicy))
        .registerConverter(Completion.class, orSentence(Completion::of))
        .registerConverter(OverlapCheck.class, orSentence(Choice::overlapCheck))
        .registerConverter(TlsMode.class, orSentence(Choice::tlsMode))
        .setParameterExceptionHandler((failure, _) -> misused(failure))
        .setExecutionExceptionHandler((failure, command, _) -> failed(failure, command))
        .setExecutionStrategy(this::execute);
  }

  /** Runs one command line and exits with its code. */
  public static void main(String[] args) {
    LogService.choose();
    Preparation.begin(List.of(args).contains("serve"));
    System.exit(new Qnbd(Terminal.ofProcess()).run(args));
  }

  /** Runs one command line and returns its exit code. */
  int run(String... args) {
    int code = commandLine(needed(args)).execute(args);
    terminal.out().flush();
    terminal.err().flush();
    return code;
  }

  /** For tests of the help texts. */
  CommandLine commandLine() {
    return commandLine(COMMANDS.keySet());
  }

  /** Without a command there is nothing to do but to say which there are. */
  @Override
  public Integer call() {
    commandLine().usage(terminal.err());
    return ExitCode.USAGE;
  }

  private int execute(ParseResult parsed) {
    Preparation.await();
    if (debug || verbose) {
      LogService.tellMore(debug);
    }
    return new CommandLine.RunLast().execute(parsed);
  }

  private int misused(ParameterException failure) {
    return misused(misuse(failure), failure.getCommandLine());
  }

  private int misused(String sentence, CommandLine command) {
    terminal
        .err()
        .println(
            "qnbd: %s (see '%s --help')"
                .formatted(Printable.text(sentence), command.getCommandSpec().qualifiedName()));
    return ExitCode.USAGE;
  }

  private static String misuse(ParameterException failure) {
    if (failure instanceof UnmatchedArgumentException unmatched && !unmatched.isUnknownOption()) {
      List<String> suggestions = unmatched.getSuggestions();
      return "unexpected argument '%s'%s"
          .formatted(
              unmatched.getUnmatched().getFirst(),
              suggestions.isEmpty() ? "" : "; did you mean " + suggestions.getFirst() + "?");
    }
    String message = String.valueOf(failure.getMessage());
    return message.substring(0, 1).toLowerCase(Locale.ROOT) + message.substring(1);
  }

  private int failed(Exception failure, CommandLine command) {
    if (failure instanceof UsageException) {
      return misused(String.valueOf(failure.getMessage()), command);
    }
    terminal.err().println("qnbd: " + Failures.sentence(failure));
    if (debug) {
      failure.printStackTrace(terminal.err());
    }
    return ExitCode.FAILURE;
  }

  /** picocli shows the message of no other exception as it is. */
  private static <T> ITypeConverter<T> orSentence(Function<String, T> parser) {
    return text -> {
      try {
        return parser.apply(text);
      } catch (IllegalArgumentException e) {
        throw new TypeConversionException(String.valueOf(e.getMessage()));
      }
    };
  }

  /** What {@code --version} tells. */
  static String version() throws IOException {
    Properties properties = new Properties();
    try (InputStream in = Qnbd.class.getResourceAsStream("version.properties")) {
      if (in != null) {
        properties.load(in);
      }
    }
    return properties.getProperty("version", "(unknown version)");
  }
}
