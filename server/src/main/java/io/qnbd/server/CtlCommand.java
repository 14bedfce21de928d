package io.qnbd.server;

import io.qnbd.server.config.ExportPlan;
import io.qnbd.server.control.ControlClient;
import io.qnbd.server.control.ControlRequest;
import io.qnbd.server.control.ReloadReport;
import java.io.IOException;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.ParentCommand;
import picocli.CommandLine.ScopeType;

/** {@code qnbd ctl}: asks a server that runs. */
@Command(
    name = "ctl",
    scope = ScopeType.INHERIT,
    subcommands = {
      CtlCommand.OfSnapshots.class,
      CtlBitmapCommand.class,
      CtlCommand.OfExports.class,
      CtlCommand.OfClients.class
    },
    header = "Ask a server that runs: exports, clients, snapshots, bitmaps, counters.",
    synopsisHeading = "%nUsage: ",
    synopsisSubcommandLabel = "COMMAND",
    description = {
      "Talks to a server that was started with 'qnbd serve --control SOCKET'. Exports come, grow"
          + " and go, and snapshots and bitmaps are made and removed, while clients go on. EXPORT"
          + " is the name that clients use; where there is only one export, an empty name ('')"
          + " means it too."
    },
    descriptionHeading = "%n",
    parameterListHeading = "%nArguments:%n",
    optionListHeading = "%nOptions:%n",
    commandListHeading = "%nCommands:%n",
    exitCodeListHeading = "%nExit codes:%n",
    exitCodeList = {
      "0:done",
      "1:failed, or no server answers; standard error says why",
      "64:the command line makes no sense"
    },
    footerHeading = "%nExamples:%n",
    footer = {
      "  qnbd ctl /run/qnbd.ctl exports",
      "  qnbd ctl /run/qnbd.ctl stats",
      "  qnbd ctl /run/qnbd.ctl export add --create 10G scratch=scratch.qcow2",
      "  qnbd ctl /run/qnbd.ctl resize scratch 20G",
      "  qnbd ctl /run/qnbd.ctl compact scratch",
      "  qnbd ctl /run/qnbd.ctl export remove scratch",
      "  qnbd ctl /run/qnbd.ctl clients",
      "  qnbd ctl /run/qnbd.ctl client disconnect 3",
      "  qnbd ctl /run/qnbd.ctl reload",
      "  qnbd ctl /run/qnbd.ctl snapshot create disk.qcow2 before-upgrade",
      "  qnbd ctl /run/qnbd.ctl snapshot list disk.qcow2",
      "  qnbd ctl /run/qnbd.ctl snapshot delete disk.qcow2 before-upgrade",
      "  qnbd ctl /run/qnbd.ctl bitmap add disk.qcow2 monday",
      "  qnbd ctl /run/qnbd.ctl bitmap add --replace monday disk.qcow2 tuesday"
    })
final class CtlCommand {
  private final Terminal terminal;

  @Parameters(
      paramLabel = "SOCKET",
      scope = ScopeType.LOCAL,
      description = "The socket that the server was given with --control.")
  private Path socket = Path.of("");

  @Option(
      names = "--json",
      scope = ScopeType.INHERIT,
      description = "Print the server's answer as it came, a line of JSON.")
  private boolean json;

  CtlCommand(Terminal terminal) {
    this.terminal = terminal;
  }

  @Command(
      name = "exports",
      customSynopsis = "qnbd ctl SOCKET exports [-h] [--json]",
      header = "List the exports.",
      description = "Lists what is served, and how many clients are connected to each.")
  int exports() throws IOException {
    return ask(new ControlRequest.Exports(), CtlAnswer::exports);
  }

  @Command(
      name = "stats",
      customSynopsis = "qnbd ctl SOCKET stats [-h] [--json] [EXPORT]",
      header = "Show the counters.",
      description = "Shows what the clients asked for, and what the images did for it.")
  int stats(
      @Parameters(arity = "0..1", paramLabel = "EXPORT", description = "Default: every export.")
          @Nullable String export)
      throws IOException {
    return ask(new ControlRequest.Stats(export), CtlAnswer::stats);
  }

  @Command(
      name = "clients",
      customSynopsis = "qnbd ctl SOCKET clients [-h] [--json]",
      header = "List the clients.",
      description = {
        "Lists who is connected: the number that 'client disconnect' takes, the client's address, "
            + "the export, since when, and who the client is by TLS."
      })
  int clients() throws IOException {
    return ask(new ControlRequest.Clients(), CtlAnswer::clients);
  }

  @Command(
      name = "resize",
      customSynopsis = "qnbd ctl SOCKET resize [-h] [--json] EXPORT SIZE",
      header = "Make an export's disk larger.",
      description = {
        "Makes the disk larger while clients use it. The new space reads as zeroes. Clients that "
            + "are connected see the old size until they connect again."
      })
  int resize(
      @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
      @Parameters(
              paramLabel = "SIZE",
              description = "Bytes, or with a unit (K, M, G, T, P, E: powers of 1024).")
          ByteCount size)
      throws IOException {
    return ask(new ControlRequest.Resize(export, size.bytes()), CtlAnswer::resized);
  }

  @Command(
      name = "compact",
      customSynopsis = "qnbd ctl SOCKET compact [-h] [--json] EXPORT",
      header = "Give space that an export's image does not use back to the host.",
      description = {
        "Moves what stands at the end of the image's file forward, gives the space of free clusters"
            + " back to the host and shortens the file, while clients use the disk. Returns when it"
            + " is done. What snapshots share and compressed clusters stay where they are."
      })
  int compact(@Parameters(paramLabel = "EXPORT", description = "The export.") String export)
      throws IOException {
    return ask(new ControlRequest.Compact(export), CtlAnswer::compacted);
  }

  @Command(
      name = "reload",
      customSynopsis = "qnbd ctl SOCKET reload [-h] [--json]",
      header = "Read the configuration file again.",
      description = {
        "Makes the exports what the file given with 'serve --config' says now; SIGHUP does the"
            + " same. Exports that did not change, and those that are not of the file, go on as"
            + " they are. A file with an error changes nothing."
      })
  int reload() throws IOException {
    ControlClient.Reply reply = ControlClient.ask(socket, new ControlRequest.Reload());
    terminal.out().println(json ? reply.line() : CtlAnswer.reloaded(reply.members()));
    boolean allDone = ReloadReport.read(reply.members()).failed().isEmpty();
    return allDone ? ExitCode.OK : ExitCode.FAILURE;
  }

  int ask(ControlRequest request, CtlAnswer.Text text) throws IOException {
    ControlClient.Reply reply = ControlClient.ask(socket, request);
    terminal.out().println(json ? reply.line() : text.of(reply.members()));
    return ExitCode.OK;
  }

  /** {@code qnbd ctl SOCKET export}. */
  @Command(
      name = "export",
      customSynopsis = "qnbd ctl SOCKET export [-h] [--json] COMMAND",
      header = "Add and remove exports.",
      description = "Adds and removes exports while the server runs.")
  static final class OfExports {
    @ParentCommand private @Nullable CtlCommand parent;

    @Command(
        name = "add",
        customSynopsis = "qnbd ctl SOCKET export add [-h] [--json] [OPTION...] [NAME=]PATH",
        header = "Serve another image.",
        description = "Opens an image and serves it; the options are those of 'qnbd serve'.")
    int add(
        @Parameters(
                paramLabel = "[NAME=]PATH",
                description = "An image and the name to export it by; without one, the file's own.")
            ExportArgument export,
        @Mixin ExportOptions options)
        throws IOException {
      ExportPlan _ = options.plan(export); // refuses what makes no sense before the server does
      return parentOf(parent)
          .ask(
              new ControlRequest.AddExport(options.keys(export, export.path().toAbsolutePath())),
              CtlAnswer::added);
    }

    @Command(
        name = "remove",
        customSynopsis = "qnbd ctl SOCKET export remove [-h] [--json] EXPORT",
        header = "Serve an export no more.",
        description = {
          "Lets no more clients in, lets those that are there finish what they have asked for and "
              + "disconnects them, and closes the image."
        })
    int remove(@Parameters(paramLabel = "EXPORT", description = "The export.") String export)
        throws IOException {
      return parentOf(parent)
          .ask(
              new ControlRequest.RemoveExport(export),
              _ -> Printable.text("removed export " + export));
    }
  }

  /** {@code qnbd ctl SOCKET client}. */
  @Command(
      name = "client",
      customSynopsis = "qnbd ctl SOCKET client [-h] [--json] COMMAND",
      header = "Disconnect clients.",
      description = "Disconnects clients; 'clients' lists them.")
  static final class OfClients {
    @ParentCommand private @Nullable CtlCommand parent;

    @Command(
        name = "disconnect",
        customSynopsis = "qnbd ctl SOCKET client disconnect [-h] [--json] ID",
        header = "Disconnect a client.",
        description = {
          "Lets a client finish what it has asked for and disconnects it. Most clients connect"
              + " again."
        })
    int disconnect(
        @Parameters(paramLabel = "ID", description = "A number that 'clients' shows.") long id)
        throws IOException {
      return parentOf(parent)
          .ask(new ControlRequest.Disconnect(id), _ -> "disconnected client " + id);
    }
  }

  static CtlCommand parentOf(@Nullable CtlCommand parent) {
    if (parent == null) {
      throw new AssertionError("picocli sets the parent of a subcommand");
    }
    return parent;
  }

  /** {@code qnbd ctl SOCKET snapshot}. */
  @Command(
      name = "snapshot",
      customSynopsis = "qnbd ctl SOCKET snapshot [-h] [--json] COMMAND",
      header = "List, take, delete and rename snapshots of an export.",
      description = "Works on the internal snapshots of an export's image.")
  static final class OfSnapshots {
    @ParentCommand private @Nullable CtlCommand parent;

    @Command(
        name = "list",
        customSynopsis = "qnbd ctl SOCKET snapshot list [-h] [--json] EXPORT",
        header = "List the snapshots.",
        description = "Lists the snapshots.")
    int list(@Parameters(paramLabel = "EXPORT", description = "The export.") String export)
        throws IOException {
      return ask(new ControlRequest.ListSnapshots(export), CtlAnswer::snapshots);
    }

    @Command(
        name = "create",
        customSynopsis = "qnbd ctl SOCKET snapshot create [-h] [--json] EXPORT NAME",
        header = "Take a snapshot.",
        description = {
          "Keeps the disk as it is now under a name. What clients have flushed is in it, and what "
              + "they were answered; a file system on it looks like after a power cut."
        })
    int create(
        @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
        @Parameters(paramLabel = "NAME", description = "A name that no snapshot has.") String name)
        throws IOException {
      return ask(
          new ControlRequest.CreateSnapshot(export, name),
          _ -> Printable.text("took snapshot " + name));
    }

    @Command(
        name = "delete",
        customSynopsis = "qnbd ctl SOCKET snapshot delete [-h] [--json] EXPORT NAME",
        header = "Delete a snapshot.",
        description = "Forgets a snapshot and frees the space that it alone takes.")
    int delete(
        @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
        @Parameters(paramLabel = "NAME", description = "A snapshot's name or id.") String name)
        throws IOException {
      return ask(
          new ControlRequest.DeleteSnapshot(export, name),
          _ -> Printable.text("deleted snapshot " + name));
    }

    @Command(
        name = "rename",
        customSynopsis = "qnbd ctl SOCKET snapshot rename [-h] [--json] EXPORT NAME NEW-NAME",
        header = "Rename a snapshot.",
        description = "Gives a snapshot another name.")
    int rename(
        @Parameters(paramLabel = "EXPORT", description = "The export.") String export,
        @Parameters(paramLabel = "NAME", description = "A snapshot's name or id.") String name,
        @Parameters(paramLabel = "NEW-NAME", description = "A name that no snapshot has.")
            String newName)
        throws IOException {
      return ask(
          new ControlRequest.RenameSnapshot(export, name, newName),
          _ -> Printable.text("snapshot %s is now %s".formatted(name, newName)));
    }

    private int ask(ControlRequest request, CtlAnswer.Text text) throws IOException {
      return parentOf(parent).ask(request, text);
    }
  }
}
