import com.recall.v1.AtMost;
import com.recall.v1.GetServerInfoResponse;
import com.recall.v1.RecallRequest;
import com.recall.v1.RecallResponse;
import com.recall.v1.RecallServiceGrpc.RecallServiceBlockingStub;
import com.recall.v1.UpsertUsersRequest;
import com.recall.v1.UserCandidates;
import com.recall.v1.UserUpdate;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * Two pages of 10 candidates for the user ann, at most 3 of a category on each, within 500 ms a call; then tells the
 * service what was shown: java Pages localhost:50051 500 10 category=3 ann 50,181,174.
 */
public final class Pages {
  /** Returns once every server knows what the user was shown. */
  static void rememberShown(RecallServiceBlockingStub stub, UserUpdate shown, long timeoutMs) {
    UpsertUsersRequest request = UpsertUsersRequest.newBuilder().addUsers(shown).build();
    stub.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS).upsertUsers(request);
  }

  public static void main(String[] args) throws Exception {
    long timeoutMs = Long.parseLong(args[1]);
    String[] rule = args[3].split("=");
    String userId = args[4];
    Recall.run(
        args[0],
        stub -> {
          GetServerInfoResponse info = Recall.serverInfo(stub, timeoutMs);
          boolean text = Recall.hasTextIds(info);
          RecallRequest request =
              RecallRequest.newBuilder()
                  .addUsers(Recall.user(Recall.split(args[5]), text).setUserId(userId))
                  .setTopK(Integer.parseInt(args[2]))
                  .addAtMost(AtMost.newBuilder().setAttribute(rule[0]).setCount(Integer.parseInt(rule[1])))
                  .setDiversity(0.2f)
                  .setExcludeShown(info.getUsersEnabled()) // needs a server with --users
                  .build();
          List<UserCandidates> pages = new ArrayList<>();
          RecallResponse first = Recall.recall(stub, request.toBuilder().setPaged(true).build(), timeoutMs);
          pages.add(first.getResults(0));
          if (!first.getNextPageToken().isEmpty()) {
            RecallRequest next = request.toBuilder().setPageToken(first.getNextPageToken()).build();
            pages.add(Recall.recall(stub, next, timeoutMs).getResults(0));
          }
          UserUpdate.Builder shown = UserUpdate.newBuilder().setUserId(userId);
          int count = 0;
          for (int number = 0; number < pages.size(); number++) {
            UserCandidates page = pages.get(number);
            List<?> ids = text ? page.getItemKeysList() : page.getItemIdsList();
            count += ids.size();
            String listed = ids.stream().map(Object::toString).collect(Collectors.joining(" "));
            System.out.println("page " + (number + 1) + ": " + listed);
            shown.addAllShownItemIds(page.getItemIdsList()).addAllShownItemKeys(page.getItemKeysList());
          }
          if (info.getUsersEnabled()) {
            rememberShown(stub, shown.build(), timeoutMs);
            System.out.println(count + " items will not be shown to " + userId + " again");
          }
        });
  }
}
